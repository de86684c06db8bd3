//! A disk that loses its power: ext4 in an image file, mounted through a loop device.
//!
//! `kill -9` leaves the page cache, and with it every write that nobody synced. Here the file system is shut down as it is (as xfstests do it: no write
//! that is under way is finished, the journal is not flushed), so that the image holds what the disk had; a copy of it is mounted, where the kernel recovers it
//! from its journal. Each cut takes a file along that was written and not synced, and leaves one that was: so it is one.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::eventually;

/// Mounted while it lives.
pub struct Disk {
    folder: tempfile::TempDir,
    cuts: u32,
    /// Waits for a line, and cuts.
    switch: Option<Child>,
}

impl Disk {
    /// An empty one.
    pub fn new() -> Disk {
        let mut folder = tempfile::Builder::new();
        // PostgreSQL has a user of its own.
        folder.prefix("isthmus-disk-").permissions(Permissions::from_mode(0o755));
        let folder = folder.tempdir().expect("a folder for the tests");
        let mut disk = Disk { folder, cuts: 0, switch: None };
        File::create(disk.image()).and_then(|image| image.set_len(SIZE)).expect("a file with a hole");
        // As whoever runs the tests owns what is on it.
        let me = fs::metadata(disk.folder.path()).expect("our own folder");
        let owner = format!("root_owner={}:{},lazy_itable_init=1,nodiscard", me.uid(), me.gid());
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-b", "4096", "-E", &owner]).arg(disk.image()));
        fs::create_dir(disk.path()).expect("a place to mount it");
        disk.mount();
        let mut synced = File::create(disk.path().join(SYNCED)).expect("the disk is empty");
        synced.write_all(&[1; CONTROL]).and_then(|()| synced.sync_all()).expect("the disk takes a file");
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// From here on nothing more gets to it, within microseconds. Whoever writes or syncs is told so; but for a sync that is under way, which may seem to
    /// succeed: what is acknowledged after the beginning of this counts for nothing, as with a power cut nobody would hear it.
    pub fn cut(&mut self) {
        fs::write(self.path().join(UNSYNCED), [1; CONTROL]).expect("the disk takes a file");
        let mut switch = self.switch.take().expect("the disk was not cut before");
        switch.stdin.take().expect("a pipe").write_all(b"\n").expect("the switch waits");
        let done = switch.wait_with_output().expect("a child of ours");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Power is back: what the disk had is there again. Whoever had files open on it has been killed before.
    pub fn restore(&mut self) {
        let had = self.image();
        self.cuts += 1;
        run(Command::new("cp").arg("--sparse=always").arg(&had).arg(self.image()));
        // The last of the killed may not be gone yet.
        eventually("nobody uses the disk", Duration::from_secs(20), || unmount(&self.path(), &[]));
        fs::remove_file(had).expect("our own image");
        self.mount();
        let length = |name| fs::metadata(self.path().join(name)).map_or(0, |file| file.len());
        assert_eq!((length(SYNCED), length(UNSYNCED)), (CONTROL as u64, 0), "the cut takes what was not synced, alone");
        let _ = fs::remove_file(self.path().join(UNSYNCED));
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join(format!("image-{}", self.cuts))
    }

    /// The loop device goes with the mount. The journal is not committed by the clock: nothing should be there by luck.
    fn mount(&mut self) {
        let mut mount = as_root("mount");
        let done = mount.args(["-t", "ext4", "-o", "loop,noatime,commit=600"]).arg(self.image()).arg(self.path());
        let done = done.output().expect("mount is installed (tests/run does it)");
        let why = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success(),
            "missing: the right to mount a loop device (root or sudo, /dev/loop-control): {why}"
        );
        let mut switch = as_root("python3");
        let switch = switch.args(["-c", SWITCH]).arg(self.path()).stdin(Stdio::piped()).stderr(Stdio::piped());
        self.switch = Some(switch.spawn().expect("python3 is installed (tests/run does it)"));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Its input ends with it, and then it does.
        if let Some(mut switch) = self.switch.take() {
            drop(switch.stdin.take());
            let _ = switch.wait();
        }
        // Of a test that failed, somebody may still have files open: then it goes with the last of them.
        if !unmount(&self.path(), &[]) {
            unmount(&self.path(), &["--lazy"]);
        }
    }
}

fn unmount(place: &Path, how: &[&str]) -> bool {
    as_root("umount").args(how).arg(place).output().is_ok_and(|done| done.status.success())
}

fn as_root(program: &str) -> Command {
    if fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0) {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

fn run(command: &mut Command) {
    let done =
        command.output().unwrap_or_else(|why| panic!("{command:?}: {why}; tests/run installs what the tests need"));
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH (the kernel's uapi/linux/ext4.h).
const SWITCH: &str = "import fcntl, os, struct, sys\n\
    place = os.open(sys.argv[1], os.O_RDONLY)\n\
    if sys.stdin.readline(): fcntl.ioctl(place, 0x8004587D, struct.pack('I', 2))";
/// Bytes; what was never written is a hole.
const SIZE: u64 = 1 << 30;
const SYNCED: &str = "synced";
const UNSYNCED: &str = "unsynced";
const CONTROL: usize = 10_000;
