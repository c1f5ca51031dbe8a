//! System calls that a service never needs are refused, on all threads, by seccomp.
//!
//! Three filters, since each has one answer: what may not be done (`EPERM`); what is newer than we know, and the one way to make a process
//! that a filter can't look into (`ENOSYS`, as an older kernel says: the C library then takes the older way, which can be looked into);
//! sockets of other kinds (`EAFNOSUPPORT`).

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads, sock_filter,
};

use super::Bounds;

/// The last system call that we have looked at: `file_setattr`, of Linux 6.17. The numbers from 424 on are the same everywhere. On x86-64
/// those of the x32 kind, which would pass by a list, are all above.
const LAST_KNOWN: u32 = 469;

/// Calls that the C library's constants don't name yet.
const PROCESS_MADVISE: i64 = 440;
const MOUNT_SETATTR: i64 = 442;
const QUOTACTL_FD: i64 = 443;
const PROCESS_MRELEASE: i64 = 448;
const OPEN_TREE_ATTR: i64 = 467;

/// Starting programs.
const PROGRAMS: &[i64] = &[libc::SYS_execve, libc::SYS_execveat];

/// A process that is a copy of this one; the rest is looked at by its flags, see [`looked_into`].
#[cfg(target_arch = "x86_64")]
const FORKS: &[i64] = &[libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const FORKS: &[i64] = &[];

/// Other processes' memory and files.
const OTHERS: &[i64] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    PROCESS_MADVISE,
    PROCESS_MRELEASE,
];

/// The kernel itself: modules, programs in it, and what has been the way in most often.
const KERNEL: &[i64] = &[
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    libc::SYS_personality,
    libc::SYS_syslog,
    libc::SYS_vhangup,
];

/// The machine, its mounts, its clock.
const MACHINE: &[i64] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    MOUNT_SETATTR,
    OPEN_TREE_ATTR,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    QUOTACTL_FD,
    libc::SYS_acct,
    libc::SYS_reboot,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_settimeofday,
    libc::SYS_adjtimex,
];

/// Who we are, and files that are devices.
const IDENTITY: &[i64] = &[
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_mknodat,
];

/// Calls of one processor alone.
#[cfg(target_arch = "x86_64")]
const ELSEWHERE: &[i64] = &[
    libc::SYS_mknod,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_modify_ldt,
    libc::SYS_kexec_file_load,
    libc::SYS_uselib,
];
#[cfg(not(target_arch = "x86_64"))]
const ELSEWHERE: &[i64] = &[];

/// Restricts all threads of this process.
pub(super) fn restrict(bounds: &Bounds) -> Result<(), String> {
    for filter in filters(bounds)? {
        apply_filter_all_threads(&filter).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn filters(bounds: &Bounds) -> Result<[BpfProgram; 3], String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let filter = |rules, errno: i32| {
        let errno = SeccompAction::Errno(errno.unsigned_abs());
        SeccompFilter::new(rules, SeccompAction::Allow, errno, arch).and_then(BpfProgram::try_from)
    };
    let compiled = || {
        let sockets = sockets(bounds.files.as_ref().is_none_or(|files| files.names))?;
        Ok([filter(refused(bounds.programs)?, libc::EPERM)?, newer(), filter(sockets, libc::EAFNOSUPPORT)?])
    };
    compiled().map_err(|error: seccompiler::BackendError| error.to_string())
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn refused(programs: bool) -> Result<Rules, seccompiler::BackendError> {
    let always = [OTHERS, KERNEL, MACHINE, IDENTITY, ELSEWHERE];
    let with_programs: &[&[i64]] = if programs { &[] } else { &[PROGRAMS, FORKS] };
    let whole = always.iter().chain(with_programs).flat_map(|calls| calls.iter());
    let mut rules: Rules = whole.map(|call| (*call, Vec::new())).collect();
    rules.extend(looked_into(programs)?);
    Ok(rules)
}

/// A condition on the bits of an argument: those of `mask` are as in `value`.
fn bits(argument: u8, mask: i32, value: i32) -> Result<SeccompCondition, seccompiler::BackendError> {
    let masked = SeccompCmpOp::MaskedEq(u64::from(mask.cast_unsigned()));
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, masked, u64::from(value.cast_unsigned()))
}

/// Calls that are refused with some arguments.
fn looked_into(programs: bool) -> Result<Rules, seccompiler::BackendError> {
    // (that of the clock is not among this call's flags)
    const NAMESPACES: [i32; 7] = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    let rule = |conditions| SeccompRule::new(conditions);
    let mut clone = Vec::new();
    for namespace in NAMESPACES {
        clone.push(rule(vec![bits(0, namespace, namespace)?])?);
    }
    if !programs {
        // What is not a thread is a process.
        clone.push(rule(vec![bits(0, libc::CLONE_THREAD, 0)?])?);
    }
    let both = libc::PROT_WRITE | libc::PROT_EXEC;
    let gains = || rule(vec![bits(2, libc::PROT_EXEC, libc::PROT_EXEC)?]);
    // Keys typed into the terminal that we were started on.
    let mut terminal = Vec::new();
    for request in [libc::TIOCSTI, libc::TIOCLINUX] {
        let is = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request)?;
        terminal.push(rule(vec![is])?);
    }
    Ok([
        (libc::SYS_clone, clone),
        // Memory that is written is not run. (What is written to a file first, and mapped from there, is: landlock does not look at that.)
        (libc::SYS_mmap, vec![rule(vec![bits(2, both, both)?])?]),
        (libc::SYS_mprotect, vec![gains()?]),
        (libc::SYS_pkey_mprotect, vec![gains()?]),
        (libc::SYS_shmat, vec![rule(vec![bits(2, libc::SHM_EXEC, libc::SHM_EXEC)?])?]),
        (libc::SYS_ioctl, terminal),
        // A connection that comes with its first bytes is one that landlock does not see.
        (libc::SYS_sendto, vec![rule(vec![bits(3, libc::MSG_FASTOPEN, libc::MSG_FASTOPEN)?])?]),
        (libc::SYS_sendmsg, vec![rule(vec![bits(2, libc::MSG_FASTOPEN, libc::MSG_FASTOPEN)?])?]),
        (libc::SYS_sendmmsg, vec![rule(vec![bits(3, libc::MSG_FASTOPEN, libc::MSG_FASTOPEN)?])?]),
    ]
    .into())
}

/// No sockets but those of files and of the internet: not the kernel's own, not packets; of the internet's no protocols but TCP and UDP (landlock
/// does not see where MPTCP connects to), and no datagrams where nothing needs them.
fn sockets(datagrams: bool) -> Result<Rules, seccompiler::BackendError> {
    let is_not = |argument, value: i32| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, u64::from(value.unsigned_abs()))
    };
    let mut rules = vec![
        SeccompRule::new(vec![is_not(0, libc::AF_UNIX)?, is_not(0, libc::AF_INET)?, is_not(0, libc::AF_INET6)?])?,
        SeccompRule::new(vec![is_not(2, 0)?, is_not(2, libc::IPPROTO_TCP)?, is_not(2, libc::IPPROTO_UDP)?])?,
    ];
    if !datagrams {
        // (the other bits of the type are flags)
        rules.push(SeccompRule::new(vec![is_not(0, libc::AF_UNIX)?, bits(1, 0xf, libc::SOCK_DGRAM)?])?);
    }
    Ok([(libc::SYS_socket, rules)].into())
}

/// `ENOSYS` for what is above [`LAST_KNOWN`], and for `clone3`: its flags are in memory, where no filter looks.
fn newer() -> BpfProgram {
    const LOAD: u16 = 0x20;
    const IF_EQUAL: u16 = 0x15;
    const IF_ABOVE: u16 = 0x25;
    const RETURN: u16 = 0x06;
    let line = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let clone3 = u32::try_from(libc::SYS_clone3).unwrap_or(u32::MAX);
    vec![
        // The number of the call is the first word of what a filter sees.
        line(LOAD, 0, 0, 0),
        line(IF_EQUAL, 1, 0, clone3),
        line(IF_ABOVE, 0, 1, LAST_KNOWN),
        line(RETURN, 0, 0, SeccompAction::Errno(libc::ENOSYS.unsigned_abs()).into()),
        line(RETURN, 0, 0, SeccompAction::Allow.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::Files;
    use super::*;

    #[test]
    fn the_filters_are_ones_that_the_kernel_takes() {
        for (programs, names) in [(false, false), (false, true), (true, false), (true, true)] {
            let files = Some(Files { names, ..Files::default() });
            let filters = filters(&Bounds { files, programs }).unwrap();
            assert!(filters.iter().all(|filter| (5..=4096).contains(&filter.len())), "{programs} {names}");
        }
    }

    #[test]
    fn programs_are_refused_unless_a_token_starts_some_and_namespaces_always() {
        let (usual, token) = (refused(false).unwrap(), refused(true).unwrap());
        assert!(usual[&libc::SYS_execve].is_empty() && !token.contains_key(&libc::SYS_execve));
        assert_eq!((usual[&libc::SYS_clone].len(), token[&libc::SYS_clone].len()), (8, 7));
        for call in [libc::SYS_unshare, libc::SYS_setns, libc::SYS_ptrace, libc::SYS_io_uring_setup] {
            assert!(usual[&call].is_empty() && token[&call].is_empty());
        }
        // What a service lives on.
        for call in [libc::SYS_openat, libc::SYS_futex, libc::SYS_epoll_pwait, libc::SYS_fdatasync, libc::SYS_accept4] {
            assert!(!usual.contains_key(&call));
        }
    }
}
