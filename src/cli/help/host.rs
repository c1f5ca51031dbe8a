//! Pages of the 4xx codes: what a host makes of us. A host tells a client next to nothing, so these say what is known and what is inferred.

use super::Page;

/// The pages, by code.
pub(super) const PAGES: &[Page] = &[
    Page {
        code: "HP-401",
        situation: "the host refuses our certificate and does not say why",
        says: "web-1 refuses our certificate; it may not know our CA",
        causes: &[
            "its sshd does not trust our CA (TrustedUserCAKeys), or not this key",
            "its principals file does not hold what the certificate says",
            "its clock is wrong: to it the window has not begun, or is over",
            "the certificate is on its revocation list, or that file is missing",
        ],
        steps: &[
            "collect what can be known from here, for whoever runs the host:",
            "  hallpass doctor web-1 --bundle web-1.txt",
            "on the host, its owner looks at all of that, or compares by hand:",
            "  sudo hallpass-host check",
            "  sudo sshd -T | grep -i trustedusercakeys",
            "  sudo journalctl -u ssh | grep -i cert",
            "what it must trust:",
            "  hallpass ca export",
            "of an enrolled host, operators see what its sshd trusts, and its clock:",
            "  hallpass admin host show web-1",
        ],
        again: "does not help before something changes on the host",
    },
    Page {
        code: "HP-402",
        situation: "the account is not one that this access is for",
        says: "web-1 has no login `deploi` for this grant",
        causes: &["ssh takes another account: from its configuration, or your own name", "a typing error"],
        steps: &[
            "name the account that the access is for:",
            "  ssh deploy@web-1",
            "or ask for the other one:",
            "  hallpass request web-1 --as ACCOUNT --reason \"...\"",
        ],
        again: "helps with the right account",
    },
    Page {
        code: "HP-403",
        situation: "the host's identity does not fit",
        says: "web-1 shows another host key than the one known here",
        causes: &[
            "the host was built anew and has a new key",
            "the name leads to another machine, or somebody is in the way",
            "its host certificate is for other names than the one you use",
            "the host CA's key is not known here yet, or is another one now",
        ],
        steps: &[
            "learn the host CA and the names of enrolled hosts anew:",
            "  hallpass known-hosts",
            "leave known_hosts as it is; ask the host's owner for its fingerprint",
            "compare that with what ssh prints here:",
            "  ssh web-1",
            "see which name and key ssh goes by:",
            "  ssh -G web-1 | grep -i -e hostname -e hostkeyalias -e known",
        ],
        again: "does not help; nothing was sent to that machine",
    },
    Page {
        code: "HP-404",
        situation: "the host takes no key at all",
        says: "web-1 takes no keys, not only not yours",
        causes: &["its sshd does not offer the `publickey` method"],
        steps: &[
            "collect what can be known from here, for whoever runs the host:",
            "  hallpass doctor web-1 --bundle web-1.txt",
            "on the host:",
            "  sudo sshd -T | grep -i -e pubkeyauth -e authenticationmethods",
        ],
        again: "does not help before something changes on the host",
    },
    Page {
        code: "HP-405",
        situation: "the certificate is not for the address you come from",
        says: "web-1 refuses our certificate from 192.0.2.7",
        causes: &[
            "the rule has `sources`, and your network is not among them",
            "the way leads through a VPN, a jump host or another address",
        ],
        steps: &[
            "see from where it may be used:",
            "  hallpass explain web-1",
            "come from there: by VPN, or through a jump host",
            "  ssh -J bastion web-1",
        ],
        again: "helps from another network",
    },
    Page {
        code: "HP-406",
        situation: "the host cannot be reached",
        says: "web-1 cannot be reached",
        causes: &[
            "its name does not resolve, or to the wrong address",
            "it is down, its sshd is not running, or a firewall is in the way",
            "its sshd hangs up on your address for a while (PerSourcePenalties)",
            "a jump host does not pass you on: its rule must permit port_forwarding",
        ],
        steps: &[
            "see where ssh goes, and by which way:",
            "  ssh -G web-1 | grep -i -e hostname -e port -e proxy",
            "then look at the network, VPN and the host itself",
        ],
        again: "can help; this has nothing to do with your access",
    },
];
