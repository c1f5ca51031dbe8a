//! Login and the life of a request, from outside: everything goes through public functions.
//!
//! | File | What |
//! |---|---|
//! | `login` | what `ssh-keygen` signs proves a person, and nothing else does |
//! | `rules`, `granted` | one test per rule of the lifecycle |
//! | `rows` | stored parts that contradict each other are refused |
//! | `digest` | the digest's bytes, computed a second time |
//! | `table` | the golden table: each state by each command (`tests/lifecycle/transitions.txt`) |
//! | `random` | long random histories against a ledger kept beside them (P1, P3–P6, I-11, I-12) |
//! | `explore` | all short histories of a small world (I-6, I-11, I-12) |
//! | `ledger` | the books that the last two keep, apart from the code that they check |
//! | `world` | the people, policies and clock they share |

mod digest;
mod explore;
mod granted;
mod ledger;
mod login;
mod random;
mod rows;
mod rules;
mod signed;
mod table;
mod world;
