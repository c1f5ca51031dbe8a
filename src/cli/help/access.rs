//! Pages of the 2xx codes: what policy and people say to a request, and how access ends.

use super::Page;

/// The pages, by code.
pub(super) const PAGES: &[Page] = &[
    Page {
        code: "HP-201",
        situation: "no rule lets you ask for this",
        says: "no rule of the policy lets you ask for this",
        causes: &[
            "no rule is for you, this host, this account and this hour together",
            "a rule refuses it; its message says why",
            "the policy knows no such host: a typing error, or a new host",
        ],
        steps: &[
            "see rule by rule what fits and what does not:",
            "  hallpass explain web-1",
            "ask for what the nearest rule gives:",
            "  hallpass request web-1 --as ACCOUNT --reason \"...\"",
        ],
        again: "does not help before the policy, the hour or the question changes",
    },
    Page {
        code: "HP-202",
        situation: "the reason or the ticket is not what the rule wants",
        says: "the policy wants a better reason, or a ticket",
        causes: &[
            "the reason is shorter than the rule takes",
            "the rule wants a ticket of a certain form, such as INC-1234",
        ],
        steps: &["say it so:", "  hallpass request web-1 --reason \"...\" --ticket INC-1234"],
        again: "helps with better words",
    },
    Page {
        code: "HP-203",
        situation: "nobody has decided yet",
        says: "7K3F is not decided yet",
        causes: &[
            "those who can approve have not looked, or are away",
            "you said --no-wait, or the waiting time ran out",
        ],
        steps: &[
            "go on waiting; Ctrl-C leaves the request open:",
            "  hallpass wait 7K3F",
            "see who can approve it, and ask one of them:",
            "  hallpass show 7K3F",
        ],
        again: "waiting helps; asking a second time only troubles people twice",
    },
    Page {
        code: "HP-204",
        situation: "somebody said no",
        says: "bob@example.com denied 7K3F",
        causes: &["the reason that they gave stands below the message"],
        steps: &["see what else you could ask for:", "  hallpass explain web-1"],
        again: "does not help without another reason, host or account",
    },
    Page {
        code: "HP-205",
        situation: "the request ran out undecided",
        says: "nobody decided 7K3F in time",
        causes: &["nobody who can approve it looked before the rule's `decide_by` passed"],
        steps: &[
            "tell one of them, then ask again:",
            "  hallpass explain web-1",
            "  hallpass request web-1 --reason \"...\"",
        ],
        again: "helps when somebody is there to decide",
    },
    Page {
        code: "HP-206",
        situation: "access is over",
        says: "your access to web-1 ended 12 min ago",
        causes: &["its window has ended", "somebody ended it early, or you gave or took it back"],
        steps: &[
            "ask again:",
            "  hallpass request web-1 --reason \"...\"",
            "if ssh still offers the old certificate, because it was ended elsewhere:",
            "  hallpass status",
            "next time, before it ends:",
            "  hallpass extend 7K3F --for 30m",
        ],
        again: "does not help; a new request does",
    },
    Page {
        code: "HP-207",
        situation: "access ended in mid-session, on the host's terminal",
        says: "access to web-1 ended 04:00:51 UTC (granted 1h), HP-207",
        causes: &[
            "its window has ended; warnings came 5 min and 1 min before",
            "somebody ended it early",
            "an extension does not reach open sessions on hosts without the daemon",
        ],
        steps: &[
            "what ran there is ended; files stay, editors leave recovery files",
            "ask again, on your laptop:",
            "  hallpass ssh web-1",
            "next time, before it ends:",
            "  hallpass extend 7K3F --for 30m",
        ],
        again: "does not help; a new request does",
    },
    Page {
        code: "HP-208",
        situation: "more time than the rule gives",
        says: "the policy does not give this time",
        causes: &[
            "it is longer than the rule's longest window",
            "with the extensions so far it is more than the rule's total",
            "the start lies in the past, or too far ahead",
        ],
        steps: &[
            "ask for as much as the message names:",
            "  hallpass extend 7K3F --for 15m",
            "once the total is used up, ask anew; people decide anew:",
            "  hallpass request web-1 --reason \"...\"",
        ],
        again: "helps with a shorter time",
    },
    Page {
        code: "HP-209",
        situation: "you may not decide this",
        says: "you asked for it: nobody approves their own request",
        causes: &[
            "you asked for it yourself",
            "the rule names others, or the quorum that you belong to is met",
            "it is decided, taken back or over already",
            "the policy wants your signature: another key, your clock, or --unsigned",
        ],
        steps: &[
            "see how it stands, who can, and whether they must sign:",
            "  hallpass show 7K3F",
            "sign with the key that you log in with:",
            "  hallpass approve 7K3F",
        ],
        again: "helps with a signature that counts; else somebody else has to",
    },
    Page {
        code: "HP-210",
        situation: "granted, but it begins later",
        says: "7K3F is granted, but begins later",
        causes: &["a later start was asked for and approved"],
        steps: &["wait for it, or come back then:", "  hallpass wait 7K3F"],
        again: "helps from the time on that the message names",
    },
    Page {
        code: "HP-211",
        situation: "no access yet, and nobody here to ask for a reason",
        says: "you have no access to web-1 yet",
        causes: &[
            "ssh ran without a terminal (scp, rsync, git, an IDE, a script)",
            "you set HALLPASS_ON_MISSING=hint or HALLPASS_NO_INPUT",
        ],
        steps: &[
            "ask first, then repeat what you did:",
            "  hallpass request web-1 --reason \"...\"",
            "or let plain ssh ask on a terminal:",
            "  ssh web-1",
        ],
        again: "helps once the request is approved",
    },
];
