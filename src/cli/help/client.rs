//! Pages of the 3xx codes: this machine's ssh, its agent, files and configuration.

use super::Page;

/// The pages, by code.
pub(super) const PAGES: &[Page] = &[
    Page {
        code: "HP-301",
        situation: "the ssh agent is missing, or does not do it",
        says: "your ssh agent cannot hold certificates",
        causes: &[
            "SSH_AUTH_SOCK names no agent that runs",
            "the agent refused to sign: locked, or it asked and nobody answered",
            "some agents (older gnome-keyring, gpg-agent) take no certificates",
            "the key that you logged in with is gone, so it can't sign an approval",
        ],
        steps: &[
            "see what the agent holds:",
            "  ssh-add -L",
            "log in with a key file, or keep session keys in files:",
            "  hallpass login --key ~/.ssh/id_ed25519",
            "  hallpass setup --key file",
            "or start OpenSSH's own agent:",
            "  eval \"$(ssh-agent)\" && ssh-add",
            "or approve by your login alone, where the policy takes that:",
            "  hallpass approve 7K3F --unsigned",
        ],
        again: "helps once the agent is there, or without it",
    },
    Page {
        code: "HP-302",
        situation: "too many keys are offered before ours",
        says: "ssh offers 10 other keys to web-1 before our certificate",
        causes: &[
            "the agent holds many keys, and no line names ours for this host",
            "hosts hang up after six offers (MaxAuthTries), whatever comes next",
            "OpenSSH 9.8 and newer then also block your address for a while",
        ],
        steps: &[
            "put our lines in place; they name our key and no other:",
            "  hallpass setup",
            "then wait a minute, and try again:",
            "  ssh web-1",
        ],
        again: "makes it worse before the lines are there",
    },
    Page {
        code: "HP-303",
        situation: "others can read a key, or reach its folder, or we can't",
        says: "ssh ignores the key: others can read it",
        causes: &[
            "a copy, a backup or `chmod` changed the mode, for others or for yourself",
            "the folder is somebody else's",
        ],
        steps: &[
            "see what would be changed, then let it be changed:",
            "  hallpass doctor --fix --dry-run",
            "  hallpass doctor --fix",
            "if others may have read the key, give the access back:",
            "  hallpass end web-1",
        ],
        again: "helps after the repair",
    },
    Page {
        code: "HP-304",
        situation: "ssh is missing, too old, or not OpenSSH",
        says: "ssh 7.2 is too old for this",
        causes: &[
            "plain ssh needs OpenSSH 7.3 (`Include`); hosts with the guard 7.6",
            "HALLPASS_SSH names another program",
        ],
        steps: &[
            "see which one runs:",
            "  ssh -V",
            "update it; until then this passes all options itself:",
            "  hallpass ssh web-1",
        ],
        again: "helps after an update",
    },
    Page {
        code: "HP-305",
        situation: "our lines in ssh's configuration have no effect",
        says: "your ssh config hides ours",
        causes: &[
            "ssh takes the first value it reads: our `Include` must come first",
            "below a `Host` or `Match` line it counts for those hosts alone",
            "the fragment is missing, or of another program or folder",
            "ssh reads another file than `setup` changed (HOME, -F)",
        ],
        steps: &[
            "put it back on the first line; a copy of your file is kept:",
            "  hallpass doctor --fix",
            "if the fragment is missing, or plain ssh was never set up:",
            "  hallpass setup",
        ],
        again: "helps after the repair",
    },
];
