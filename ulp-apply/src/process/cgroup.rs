// SPDX-License-Identifier: GPL-2.0-or-later
//! How much memory the process' control groups leave it. At the limit of a memory group the kernel ends a process of the
//! group, whoever asked for the page; so this is looked at before anything is mapped or copied. Files and their meaning:
//! the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.

use super::Process;
use std::path::{Path, PathBuf};

/// What a memory group has left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Room {
    /// Bytes up to the limit, with the file pages that the kernel can drop.
    pub bytes: u64,
    /// The group's folder.
    pub group: PathBuf,
}

/// A mounted hierarchy that counts memory.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Mount {
    at: PathBuf,
    /// What of the hierarchy is mounted there.
    root: String,
    unified: bool,
}

impl Process {
    /// The tightest of the process' memory groups; `None` where there is no limit or nothing can be known of it.
    pub fn memory_room(&self) -> Option<Room> {
        let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).ok()?;
        let mounts = mounts(&std::fs::read_to_string("/proc/self/mountinfo").ok()?);
        mounts.iter().filter_map(|mount| tightest(mount, group(&groups, mount.unified)?)).min_by_key(|room| room.bytes)
    }
}

/// proc(5): "36 35 98:0 /root /mount/point options optional-fields - type source super-options".
fn mounts(mountinfo: &str) -> Vec<Mount> {
    let one = |line: &str| {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(3);
        let (root, at) = (front.next()?, front.next()?);
        let mut back = back.split(' ');
        let (kind, options) = (back.next()?, back.nth(1).unwrap_or(""));
        let unified = kind == "cgroup2";
        let counts = unified || kind == "cgroup" && options.split(',').any(|o| o == "memory");
        counts.then(|| Mount { at: at.into(), root: root.to_owned(), unified })
    };
    mountinfo.lines().filter_map(one).collect()
}

/// The process' group in a hierarchy; cgroups(7): "hierarchy:controllers:path".
fn group(groups: &str, unified: bool) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let ours = if unified { controllers.is_empty() } else { controllers.split(',').any(|c| c == "memory") };
        ours.then_some(path)
    })
}

/// Looks at the group and all above it, as far as they can be seen.
fn tightest(mount: &Mount, group: &str) -> Option<Room> {
    let below = Path::new(group).strip_prefix(&mount.root).ok()?;
    let folders = below.ancestors().map(|below| mount.at.join(below));
    folders.filter_map(|folder| room(&folder, mount.unified)).min_by_key(|room| room.bytes)
}

fn room(folder: &Path, unified: bool) -> Option<Room> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let (limit, used) = match unified {
        // "max" is no number: no limit.
        true => (number("memory.max")?, number("memory.current")?),
        false => (number("memory.limit_in_bytes")?, number("memory.usage_in_bytes")?),
    };
    let droppable = read("memory.stat").map_or(0, |stat| droppable(&stat, unified));
    Some(Room { bytes: limit.saturating_sub(used).saturating_add(droppable), group: folder.to_owned() })
}

/// File pages that nobody has used of late: the kernel drops them before anything else.
fn droppable(stat: &str, unified: bool) -> u64 {
    let name = if unified { "inactive_file" } else { "total_inactive_file" };
    let value = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
    stat.lines().find_map(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
14 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
15 31 0:33 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
20 41 0:38 /sub /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn hierarchies_that_count_memory_are_found() {
        let found = mounts(MOUNTINFO);
        let shape: Vec<_> = found.iter().map(|m| (m.at.to_str(), m.root.as_str(), m.unified)).collect();
        assert_eq!(
            shape,
            [(Some("/sys/fs/cgroup/memory"), "/", false), (Some("/sys/fs/cgroup/unified"), "/sub", true)]
        );
        let groups = "9:name=systemd:/a\n4:cpu,memory:/b/c\n0::/sub/d\n";
        assert_eq!((group(groups, false), group(groups, true)), (Some("/b/c"), Some("/sub/d")));
        assert_eq!(group("3:cpu:/x\n", false), None);
    }

    #[test]
    fn the_tightest_group_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let put = |group: &str, files: &[(&str, &str)]| {
            let at = folder.path().join(group);
            std::fs::create_dir_all(&at).expect("a folder");
            files.iter().for_each(|(name, text)| std::fs::write(at.join(name), text).expect("a file"));
        };
        put("", &[("memory.max", "max\n"), ("memory.current", "5000\n")]);
        put("a", &[("memory.max", "9000\n"), ("memory.current", "8000\n"), ("memory.stat", "inactive_file 10\n")]);
        put("a/b", &[("memory.max", "90000\n"), ("memory.current", "8000\n"), ("memory.stat", "file 10\n")]);
        let mount = Mount { at: folder.path().to_owned(), root: "/sub".into(), unified: true };
        let room = |group| tightest(&mount, group).map(|r| (r.bytes, r.group));
        assert_eq!(room("/sub/a/b"), Some((1010, folder.path().join("a"))));
        assert_eq!(room("/sub"), None, "no limit");
        assert_eq!(room("/elsewhere"), None, "not mounted here");
    }
}
