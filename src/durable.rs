//! Replace a file so that a crash leaves either the whole old or the whole new one.
//!
//! What for: every file that hallpass writes and reads again (keys, configs, client files, trust bundles).
//! What not: append-only data (that is the store's) and files of others. A symlink at the target is replaced, not
//! followed.
//!
//! Order: a new temporary file beside the target, readable by nobody else; write; the final mode (whatever the umask
//! is); `fsync`; rename; `fsync` of the folder. A failed `fsync` is never tried again (the kernel may have dropped the
//! pages already): the temporary file goes and the old file stays. A crash before the rename leaves a file
//! `.NAME.PID-N.tmp` with mode 0600 that nobody reads; it may be deleted. A [`NewFile`] goes the same way, with no name until the end where
//! that can be, and so does a [`NewFolder`].
//!
//! Known hole: a crash between rename and the folder's `fsync` may bring back the old file, whole.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// Replaces `path` with `bytes` under `mode` (for example `0o600`), durably.
///
/// # Errors
/// Any I/O error, with the path in its text; the old file is then still there, whole.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_and_hold(path, bytes, mode).map(drop)
}

/// As [`replace`]; gives the file that has the name now, open for writing. By the time that anybody looks, another one may have it.
///
/// # Errors
/// Any I/O error, with the path in its text; the old file is then still there, whole.
pub fn replace_and_hold(path: &Path, bytes: &[u8], mode: u32) -> io::Result<File> {
    place(path, bytes, mode, |from, to| fs::rename(from, to)).map_err(|e| named("write", path, &e))
}

/// As [`replace`], but refuses to touch an existing file (`io::ErrorKind::AlreadyExists`).
///
/// # Errors
/// Any I/O error, with the path in its text.
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    place(path, bytes, mode, rename_to_free_name).map(drop).map_err(|e| named("create", path, &e))
}

/// Where a process finds its open files, which have no other name perhaps.
const OPEN_FILES: &str = "/proc/self/fd";

/// A new file that is written piece by piece, and has its name once it is whole: for what is too long to be in memory.
///
/// Until then it has no name at all: when the process ends before, in whatever way, nothing is left of it. Where the file system knows no such files
/// (NFS, say) it has a temporary one, which a process that is killed leaves, as with [`replace`].
#[derive(Debug)]
pub struct NewFile {
    file: io::BufWriter<File>,
    target: PathBuf,
    mode: u32,
    temporary: Option<PathBuf>,
}

impl NewFile {
    /// Begins a file that will be `path` under `mode` (for example `0o600`).
    ///
    /// # Errors
    /// `io::ErrorKind::AlreadyExists` if something has the name; any I/O error, with the path in its text.
    pub fn begin(path: &Path, mode: u32) -> io::Result<Self> {
        Self::begin_with(path, mode, unnamed).map_err(|e| named("create", path, &e))
    }

    fn begin_with(path: &Path, mode: u32, unnamed: fn(&Path) -> io::Result<Option<File>>) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(Errno::EXIST.into());
        }
        let (file, temporary) = match unnamed(parent(path))? {
            Some(file) => (file, None),
            None => temporary_beside(path, new_file).map(|(file, temporary)| (file, Some(temporary)))?,
        };
        Ok(Self { file: io::BufWriter::new(file), target: path.to_owned(), mode, temporary })
    }

    /// Gives it its name, durably.
    ///
    /// # Errors
    /// `io::ErrorKind::AlreadyExists` if something has the name by now; any I/O error, with the path in its text. Nothing is left of the file then,
    /// unless no more than its folder could not be synced.
    pub fn finish(mut self) -> io::Result<()> {
        self.place().map_err(|e| named("create", &self.target, &e))
    }

    fn place(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let file = self.file.get_ref();
        file.set_permissions(Permissions::from_mode(self.mode))?;
        file.sync_all()?;
        match &self.temporary {
            Some(temporary) => {
                rename_to_free_name(temporary, &self.target)?;
                self.temporary = None;
            }
            None => {
                let file = format!("{OPEN_FILES}/{}", file.as_raw_fd());
                rustix::fs::linkat(CWD, file, CWD, &self.target, AtFlags::SYMLINK_FOLLOW)?;
            }
        }
        sync_folder(parent(&self.target))
    }
}

impl io::Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // One that can't be removed hurts nobody.
        if let Some(temporary) = self.temporary.take() {
            drop(fs::remove_file(temporary));
        }
    }
}

/// A new folder that is filled file by file, and has its name once all of them are there.
///
/// Until then it is a hidden one beside that, for this user alone, and goes with the value; a process that is killed leaves it, as with
/// [`replace`].
#[derive(Debug)]
pub struct NewFolder {
    temporary: Option<PathBuf>,
    target: PathBuf,
}

impl NewFolder {
    /// Begins a folder that will be `path`.
    ///
    /// # Errors
    /// `io::ErrorKind::AlreadyExists` if something has the name; any I/O error, with the path in its text.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let begun = || -> io::Result<Self> {
            if path.symlink_metadata().is_ok() {
                return Err(Errno::EXIST.into());
            }
            let ((), temporary) = temporary_beside(path, make_hidden_folder)?;
            Ok(Self { temporary: Some(temporary), target: path.to_owned() })
        };
        begun().map_err(|e| named("create", path, &e))
    }

    /// Creates a file in it with `mode` (for example `0o600`), in a folder of its own if `name` says so (`sample/1.md`).
    ///
    /// # Errors
    /// Any I/O error, with the path in its text.
    pub fn create(&self, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let Some(temporary) = &self.temporary else { return Ok(()) };
        let path = temporary.join(name);
        create_folder(parent(&path), 0o700)?;
        create(&path, bytes, mode)
    }

    /// Gives it its name, durably.
    ///
    /// # Errors
    /// `io::ErrorKind::AlreadyExists` if something has the name by now; any I/O error, with the path in its text. Nothing is left of the folder
    /// then, unless no more than the one around it could not be synced.
    pub fn finish(mut self) -> io::Result<()> {
        let Some(temporary) = &self.temporary else { return Ok(()) };
        place_new(temporary, &self.target)?;
        self.temporary = None;
        Ok(())
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        // One that can't be removed hurts nobody.
        if let Some(temporary) = self.temporary.take() {
            drop(fs::remove_dir_all(temporary));
        }
    }
}

/// Creates a hidden folder beside `path`, for this user alone. Nothing removes it.
///
/// # Errors
/// Any I/O error, with the path in its text.
pub fn create_temporary_folder(path: &Path) -> io::Result<PathBuf> {
    let made = temporary_beside(path, make_hidden_folder);
    made.map(|((), folder)| folder).map_err(|e| named("make a folder beside", path, &e))
}

/// A file in this folder without a name; `None` where there are no such files, or no way to name them.
fn unnamed(folder: &Path) -> io::Result<Option<File>> {
    if !Path::new(OPEN_FILES).exists() {
        return Ok(None);
    }
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    match rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(Some(file.into())),
        // Old kernels take it for an attempt to write to the folder itself.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Ok(None),
        Err(why) => Err(why.into()),
    }
}

/// Moves a finished file or folder to a name that must be free (`io::ErrorKind::AlreadyExists`), durably.
///
/// # Errors
/// Any I/O error, with the path in its text.
pub fn place_new(from: &Path, to: &Path) -> io::Result<()> {
    let placed = File::open(from)
        .and_then(|whole| whole.sync_all())
        .and_then(|()| rename_to_free_name(from, to))
        .and_then(|()| sync_folder(parent(to)));
    placed.map_err(|e| named("create", to, &e))
}

/// Creates a folder and its missing parents with `mode`, and makes that durable; an existing one is left alone.
///
/// # Errors
/// Any I/O error, with the path in its text; among them that something else than a folder has the name.
pub fn create_folder(path: &Path, mode: u32) -> io::Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()).collect();
    for folder in missing.into_iter().rev() {
        create_one_folder(folder, mode).map_err(|e| named("create", folder, &e))?;
    }
    Ok(())
}

fn create_one_folder(folder: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(folder) {
        // Somebody else was faster: as good as one that was there.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            // The umask may have taken bits away.
            fs::set_permissions(folder, Permissions::from_mode(mode))?;
            sync_folder(parent(folder))
        }
    }
}

fn place(path: &Path, bytes: &[u8], mode: u32, rename: fn(&Path, &Path) -> io::Result<()>) -> io::Result<File> {
    let (file, temporary) = temporary_beside(path, new_file)?;
    let placed = write_whole(file, bytes, mode).and_then(|file| rename(&temporary, path).map(|()| file));
    // The first error is the one to report; a temporary file that can't be removed hurts nobody.
    let file = placed.inspect_err(|_first| drop(fs::remove_file(&temporary)))?;
    sync_folder(parent(path))?;
    Ok(file)
}

fn write_whole(mut file: File, bytes: &[u8], mode: u32) -> io::Result<File> {
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    Ok(file)
}

fn new_file(path: &Path) -> io::Result<File> {
    // `create_new` is O_EXCL: it neither opens an existing file nor follows a link that somebody planted.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Renames unless `to` exists, in one step of the kernel.
fn rename_to_free_name(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system without that: a hard link fails just as surely when the name is taken.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        done => Ok(done?),
    }
}

fn make_hidden_folder(free: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(free)
}

/// How many names are tried. Our own choice: a process that is killed leaves one at most for each of its threads.
const NAMES_MAX: usize = 1_000;

/// Makes something under a name beside `path` that is free, and gives the name.
///
/// *Why is not any name free?* Numbers of processes come again, in a container with each start: what a killed one has left must not keep the
/// next from writing.
fn temporary_beside<T>(path: &Path, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<(T, PathBuf)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?;
    for _ in 0..NAMES_MAX {
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}-{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
        let temporary = parent(path).join(temporary);
        match make(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return Ok((made?, temporary)),
        }
    }
    Err(io::Error::other("too many temporary files of killed processes lie there (`.NAME.PID-N.tmp`); remove them"))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn named(verb: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {verb} {path:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_replaced_file_has_the_new_bytes_and_mode_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        replace(&path, b"old", 0o644).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"old".to_vec(), 0o644));
        replace(&path, b"new", 0o600).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"new".to_vec(), 0o600));
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn create_never_touches_what_exists_not_even_a_dangling_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        create(&path, b"first", 0o666).unwrap();
        assert_eq!(mode(&path), 0o666, "the umask has no say");
        let error = create(&path, b"second", 0o600).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("file"), "{error}");
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"first".to_vec(), 0o666));

        let link = folder.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert_eq!(create(&link, b"x", 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(names(folder.path()), ["file", "link"]);
    }

    #[test]
    fn what_a_killed_process_of_the_same_number_has_left_keeps_nobody_from_writing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let left = std::sync::Mutex::new(Vec::new());
        // The names that come next are taken.
        let taken = |free: &Path| {
            let mut left = left.lock().unwrap();
            if left.len() < 3 {
                left.push(free.to_owned());
                new_file(free)?;
            }
            new_file(free)
        };
        let (_file, temporary) = temporary_beside(&path, taken).unwrap();
        let left = left.into_inner().unwrap();
        assert!(left.len() == 3 && !left.contains(&temporary), "{left:?} {temporary:?}");
        assert_eq!(names(folder.path()).len(), 4);
        let never = temporary_beside(&path, |_| Err::<(), _>(Errno::EXIST.into()));
        assert!(never.unwrap_err().to_string().contains("remove them"));
    }

    type Way = fn(&Path) -> io::Result<Option<File>>;

    /// Both, wherever the test runs.
    const WAYS: [Way; 2] = [unnamed, |_| Ok(None)];

    #[test]
    fn a_new_file_has_its_name_once_it_is_whole_and_leaves_nothing_before() {
        for way in WAYS {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            let mut dropped = NewFile::begin_with(&path, 0o600, way).unwrap();
            dropped.write_all(b"half").unwrap();
            assert!(!path.exists());
            let is_unnamed = way(folder.path()).unwrap().is_some();
            assert_eq!(names(folder.path()).is_empty(), is_unnamed);
            drop(dropped);
            assert_eq!(names(folder.path()), <[&str; 0]>::default());

            let mut whole = NewFile::begin_with(&path, 0o644, way).unwrap();
            (0..100_000).for_each(|_| whole.write_all(b"piece\n").unwrap());
            whole.finish().unwrap();
            assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"piece\n".repeat(100_000), 0o644));
            assert_eq!(names(folder.path()), ["file"]);
        }
    }

    #[test]
    fn a_new_file_never_touches_what_exists_or_came_meanwhile() {
        for way in WAYS {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            let begun = NewFile::begin_with(&path, 0o600, way).unwrap();
            create(&path, b"theirs", 0o600).unwrap();
            assert_eq!(NewFile::begin(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            let error = begun.finish().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert!(error.to_string().contains("file"), "{error}");
            assert_eq!((fs::read(&path).unwrap(), names(folder.path())), (b"theirs".to_vec(), vec!["file".to_owned()]));
            let link = folder.path().join("link");
            std::os::unix::fs::symlink("nowhere", &link).unwrap();
            assert_eq!(NewFile::begin_with(&link, 0o600, way).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert!(NewFile::begin_with(&folder.path().join("none/file"), 0o600, way).is_err());
        }
    }

    #[test]
    fn a_new_folder_has_its_name_once_it_is_whole_and_never_touches_what_exists() {
        let around = tempfile::tempdir().unwrap();
        let path = around.path().join("folder");
        let dropped = NewFolder::begin(&path).unwrap();
        dropped.create("deep/file", b"half", 0o600).unwrap();
        assert!(!path.exists());
        assert_eq!(names(around.path()).len(), 1, "a hidden one");
        drop(dropped);
        assert_eq!(names(around.path()), <[&str; 0]>::default());

        let whole = NewFolder::begin(&path).unwrap();
        let late = NewFolder::begin(&path).unwrap();
        whole.create("file", b"1", 0o600).unwrap();
        whole.create("deep/file", b"2", 0o600).unwrap();
        whole.finish().unwrap();
        assert_eq!((fs::read(path.join("deep/file")).unwrap(), mode(&path)), (b"2".to_vec(), 0o700));
        assert_eq!(late.finish().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(NewFolder::begin(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(
            (names(around.path()), names(&path)),
            (vec!["folder".to_owned()], vec!["deep".to_owned(), "file".to_owned()])
        );
    }

    #[test]
    fn only_one_of_many_creators_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let wins = std::thread::scope(|scope| {
            let creators: Vec<_> = (0..8_u8)
                .map(|n| {
                    scope.spawn({
                        let path = &path;
                        move || create(path, &[n], 0o600).is_ok()
                    })
                })
                .collect();
            creators.into_iter().filter(|_| true).map(|c| c.join().unwrap()).filter(|won| *won).count()
        });
        assert_eq!(wins, 1);
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn replace_does_not_write_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        replace(&target, b"precious", 0o600).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        replace(&link, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        assert!(!link.is_symlink());
    }

    #[test]
    fn folders_are_created_with_their_parents_and_an_existing_one_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        create_folder(&deep, 0o700).unwrap();
        assert_eq!((mode(&deep), mode(&folder.path().join("a"))), (0o700, 0o700));
        create_folder(&deep, 0o755).unwrap();
        assert_eq!(mode(&deep), 0o700);
        replace(&folder.path().join("file"), b"", 0o600).unwrap();
        assert!(create_folder(&folder.path().join("file/x"), 0o700).is_err());
        assert!(create_folder(&folder.path().join("file"), 0o700).is_err());
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("folder");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"x", 0o600).is_err(), "a folder is not replaced by a file");
        assert_eq!(names(folder.path()), ["folder"]);
        assert!(replace(Path::new("/"), b"x", 0o600).is_err());
    }
}
