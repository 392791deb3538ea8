//! Memory: how much of it this process has, and how much its cgroup lets it have.
//!
//! Source: Linux, Documentation/admin-guide/cgroup-v2.rst (`memory.max`) and cgroup-v1/memory.rst (`memory.limit_in_bytes`);
//! proc(5), cgroups(7): a process's path is relative to the hierarchy's root, of which a mount may show a part.

use std::path::{Path, PathBuf};

/// From here on a number means no limit: v1 says a number of pages that nothing has.
const UNLIMITED: u64 = 1 << 62;

/// A file of the system, or its absence.
pub(crate) fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Resident memory of this process, in bytes.
pub(crate) fn resident(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let status = read(Path::new("/proc/self/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The least limit of the cgroups that this process is in; `None`: there is none, or none that can be read.
pub(crate) fn limit(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let groups = read(Path::new("/proc/self/cgroup"))?;
    let mounts = read(Path::new("/proc/self/mountinfo"))?;
    let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::of).collect();
    let path_of = |mount: &Mount| groups.lines().find_map(|line| path_in(line, mount.is_v2));
    // Another part of the hierarchy may be seen too, of which this process is none.
    let shows = |mount: &Mount| path_of(mount).is_some_and(|path| Path::new(path).starts_with(&mount.root));
    let is_known = |is_v2| mounts.iter().any(|mount| mount.is_v2 == is_v2 && shows(mount));
    let limits = mounts.iter().filter(|mount| shows(mount) || !is_known(mount.is_v2)).filter_map(|mount| {
        let path = path_of(mount)?;
        let file = if mount.is_v2 { "memory.max" } else { "memory.limit_in_bytes" };
        mount.groups(path).filter_map(|group| number(&read(&group.join(file))?)).min()
    });
    limits.min()
}

/// Where a hierarchy that has memory's controller is seen.
struct Mount {
    is_v2: bool,
    /// The part of the hierarchy that it shows.
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// Out of a line of mountinfo: `36 35 98:0 /root /point options optional... - type source options`.
    fn of(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        let is_v2 = kind == "cgroup2";
        let is_v1 = kind == "cgroup" && options.split(',').any(|option| option == "memory");
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (unescaped(fields.next()?), unescaped(fields.next()?));
        (is_v2 || is_v1).then_some(Self { is_v2, root: root.into(), point: point.into() })
    }

    /// The folders of a group and of those around it, as far as they are seen. A group outside of what is seen is taken for the
    /// outermost folder, as containers have it.
    fn groups(&self, path: &str) -> impl Iterator<Item = PathBuf> {
        let inside = Path::new(path).strip_prefix(&self.root).unwrap_or(Path::new(""));
        // Namespaces may name what is outside of them by `..`.
        let is_plain = inside.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let inside = if is_plain { inside } else { Path::new("") };
        let folders: Vec<PathBuf> = inside.ancestors().map(|part| self.point.join(part)).collect();
        folders.into_iter()
    }
}

/// The path out of a line of `/proc/self/cgroup`: `0::/path` in v2, `5:memory:/path` in v1.
fn path_in(line: &str, is_v2: bool) -> Option<&str> {
    let mut fields = line.splitn(3, ':');
    let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let is_it = match is_v2 {
        true => number == "0" && controllers.is_empty(),
        false => controllers.split(',').any(|controller| controller == "memory"),
    };
    is_it.then_some(path)
}

/// `max`, a number that nothing has, and what is no number are no limit.
fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| (1..UNLIMITED).contains(limit))
}

/// Spaces and the like stand as three octal digits behind a backslash.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(code) if code.is_ascii() => {
                plain.push(char::from(code));
                plain.push_str(&part[3..]);
            }
            _ => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "25 1 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
    const V1: &str = "30 25 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory";

    /// The limit with these files.
    fn limit_of(files: &[(&str, &str)]) -> Option<u64> {
        limit(|path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_limit_is_the_least_one_of_the_group_and_those_around_it() {
        let nested = |inner: &'static str, outer: &'static str| {
            limit_of(&[
                ("/proc/self/cgroup", "0::/system.slice/proxy.service\n"),
                ("/proc/self/mountinfo", V2),
                ("/sys/fs/cgroup/system.slice/proxy.service/memory.max", inner),
                ("/sys/fs/cgroup/system.slice/memory.max", outer),
            ])
        };
        assert_eq!(nested("1048576\n", "max\n"), Some(1 << 20));
        assert_eq!(nested("1048576\n", "524288\n"), Some(1 << 19));
        assert_eq!(nested("max\n", "524288\n"), Some(1 << 19));
        assert_eq!(nested("max\n", "max\n"), None);
    }

    #[test]
    fn the_first_version_and_both_at_once_are_read_too() {
        let v1 = ("/sys/fs/cgroup/memory/docker/7/memory.limit_in_bytes", "2097152\n");
        let groups = ("/proc/self/cgroup", "12:cpu,cpuacct:/docker/7\n5:memory:/docker/7\n0::/docker/7\n");
        assert_eq!(limit_of(&[groups, ("/proc/self/mountinfo", V1), v1]), Some(2 << 20));
        let both = format!("{V2}\n{V1}");
        let v2 = ("/sys/fs/cgroup/docker/7/memory.max", "1048576\n");
        assert_eq!(limit_of(&[groups, ("/proc/self/mountinfo", &both), v1, v2]), Some(1 << 20));
        let unified = "41 30 0:37 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        let both = format!("{unified}\n{V1}");
        assert_eq!(limit_of(&[groups, ("/proc/self/mountinfo", &both), v1]), Some(2 << 20), "hybrid");
    }

    #[test]
    fn a_container_sees_its_own_group_wherever_that_is_outside() {
        for (group, root) in [
            ("0::/", "/"),
            ("0::/kubepods/pod1/c2", "/kubepods/pod1/c2"),
            // The host's path, and nothing of it is seen.
            ("0::/kubepods/pod1/c2", "/elsewhere"),
            ("0::/../c3", "/"),
        ] {
            let mount = format!("25 1 0:22 {root} /sys/fs/cgroup ro - cgroup2 cgroup ro");
            let files =
                [("/proc/self/cgroup", group), ("/proc/self/mountinfo", &mount), ("/sys/fs/cgroup/memory.max", "4096")];
            assert_eq!(limit_of(&files), Some(4096), "{group} {root}");
        }
    }

    #[test]
    fn another_groups_limit_is_not_its_own_where_its_own_is_seen() {
        let both = format!("{V2}\n26 1 0:22 /docker/other /mnt/other ro - cgroup2 cgroup2 ro");
        let files = [
            ("/proc/self/cgroup", "0::/system.slice/proxy\n"),
            ("/proc/self/mountinfo", &both),
            ("/sys/fs/cgroup/system.slice/memory.max", "8192"),
            ("/mnt/other/memory.max", "4096"),
        ];
        assert_eq!(limit_of(&files), Some(8192));
    }

    #[test]
    fn whatever_else_the_files_say_is_no_limit() {
        for text in
            ["max", "", "-1", "0", "9223372036854771712", "18446744073709551615", "99999999999999999999", "1 GiB", "\0"]
        {
            let files =
                [("/proc/self/cgroup", "0::/"), ("/proc/self/mountinfo", V2), ("/sys/fs/cgroup/memory.max", text)];
            assert_eq!(limit_of(&files), None, "{text:?}");
        }
        for files in [
            &[][..],
            &[("/proc/self/cgroup", "0::/")],
            &[("/proc/self/mountinfo", V2)],
            &[("/proc/self/cgroup", "0::/"), ("/proc/self/mountinfo", V2)],
            &[
                ("/proc/self/cgroup", "nothing of the kind"),
                ("/proc/self/mountinfo", V2),
                ("/sys/fs/cgroup/memory.max", "7"),
            ],
            &[
                ("/proc/self/cgroup", "0::/"),
                ("/proc/self/mountinfo", "25 1 - - cgroup2"),
                ("/sys/fs/cgroup/memory.max", "7"),
            ],
        ] {
            assert_eq!(limit_of(files), None, "{files:?}");
        }
    }

    #[test]
    fn a_mount_under_an_unusual_name_is_found() {
        let mount = "25 1 0:22 / /mnt/c\\040groups rw - cgroup2 none rw";
        let files =
            [("/proc/self/cgroup", "0::/a"), ("/proc/self/mountinfo", mount), ("/mnt/c groups/a/memory.max", "7")];
        assert_eq!(limit_of(&files), Some(7));
        assert_eq!((unescaped("a\\b\\04"), unescaped("\\134")), ("a\\b\\04".to_owned(), "\\".to_owned()));
    }

    #[test]
    fn resident_memory_is_told_in_bytes_or_not_at_all() {
        let of = |status: &'static str| resident(|_| Some(status.to_owned()));
        assert_eq!(of("Name:\tx\nVmHWM:\t 9 kB\nVmRSS:\t    12 kB\n"), Some(12 * 1024));
        for odd in ["", "VmRSS:\t12\n", "VmRSS: much kB\n", "VmRSS: 99999999999999999 kB\n"] {
            assert_eq!(of(odd), None, "{odd}");
        }
        assert!(resident(read).is_some_and(|bytes| bytes > 100_000), "this process has some");
        assert_eq!(resident(|_| None), None);
    }
}
