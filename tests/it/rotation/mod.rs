//! Rotations of CA keys: the rules against a model of hosts and certificates, the service's steps, starts with other keys, and what needs two
//! people or none.

mod belonging;
mod cas;
mod given_up;
mod hosts;
mod lost;
mod model;
mod schedule;
mod starts;
mod steps;
mod two;
