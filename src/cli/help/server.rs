//! Pages of the 1xx codes: the access server, the login, the clock of this machine.

use super::Page;

/// The pages, by code.
pub(super) const PAGES: &[Page] = &[
    Page {
        code: "HP-101",
        situation: "the access server cannot be reached",
        says: "cannot reach the access server",
        causes: &[
            "the service is stopped, or a firewall or VPN stands between",
            "the name does not resolve, or the proxy (HTTPS_PROXY) is wrong",
        ],
        steps: &[
            "see what part of the way fails:",
            "  hallpass doctor --net",
            "what you hold goes on working to its end without the server:",
            "  hallpass cert ls",
            "in an emergency, follow your organisation's break-glass procedure",
            "on a host that is to be enrolled (with -k if the service has a pin):",
            "  curl https://HOST:PORT/healthz",
        ],
        again: "helps once the way is free; an open request stays open",
    },
    Page {
        code: "HP-102",
        situation: "the server's certificate does not fit",
        says: "this is not the server you enrolled with",
        causes: &[
            "somebody or something on the way answers in the server's place",
            "the service got a new certificate, and nobody told you its pin",
        ],
        steps: &[
            "do not go on",
            "have whoever runs the service tell you its pin, but not over this network",
            "only if it fits what was shown:",
            "  hallpass login --server URL --pin PIN",
        ],
        again: "does not help; on another network it can show who is in the way",
    },
    Page {
        code: "HP-103",
        situation: "too many calls or open requests",
        says: "too many requests of yours are open",
        causes: &[
            "a script asks in a tight loop",
            "as many of your requests are open as one person may have",
            "many people behind one address log in at the same moment",
        ],
        steps: &[
            "give back or take back what you do not need:",
            "  hallpass requests --mine",
            "  hallpass cancel ID",
            "otherwise wait as long as the message says",
        ],
        again: "helps after the time that the message names",
    },
    Page {
        code: "HP-104",
        situation: "the answer is not one that this client understands",
        says: "the server's answer is not hallpass'",
        causes: &[
            "the address is that of another program, or a login page of the network",
            "the server is newer than this client, or the other way round",
        ],
        steps: &[
            "look where the profile points, and what answers there:",
            "  hallpass doctor",
            "compare versions with whoever runs the service:",
            "  hallpass version",
        ],
        again: "does not help, unless a network's login page stood between",
    },
    Page {
        code: "HP-111",
        situation: "no login, or it is over",
        says: "you are not logged in to `work`",
        causes: &[
            "a login lasts 12 hours unless the service says otherwise",
            "you logged out everywhere, or the service ended your sessions",
            "another profile is meant (HALLPASS_PROFILE, --profile)",
        ],
        steps: &["log in; the profile knows server, person and key from the last time:", "  hallpass login"],
        again: "helps after logging in",
    },
    Page {
        code: "HP-121",
        situation: "this machine's clock is wrong",
        says: "your clock is 6 min 10 s ahead",
        causes: &[
            "time synchronisation is off, or blocked by the network",
            "a virtual machine slept, or the clock's battery is empty",
        ],
        steps: &[
            "set it; on Linux with systemd:",
            "  sudo timedatectl set-ntp true",
            "on macOS:",
            "  sudo sntp -sS time.apple.com",
            "then look again:",
            "  hallpass doctor",
        ],
        again: "not needed; access goes by the server's clock, and works",
    },
];
