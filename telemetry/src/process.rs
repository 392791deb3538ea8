//! What a process takes of its host, under the names that Prometheus' own clients use.
//!
//! Source: proc(5); <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>

use crate::catalogue;
use crate::exposition::Page;
use std::fs;

/// Version of this build, and the revision that it was built from if whoever built it has said so (`RINGWAY_REVISION`).
const BUILD: [&str; 2] = [
    env!("CARGO_PKG_VERSION"),
    match option_env!("RINGWAY_REVISION") {
        Some(revision) => revision,
        None => "",
    },
];

/// Writes them: what cannot be read is left out.
pub fn write(page: &mut Page) {
    page.head(&catalogue::BUILD_INFO);
    page.sample(&catalogue::BUILD_INFO, &BUILD, 1.0);
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let stat = text("/proc/self/stat");
    let stat = Stat::of(&stat);
    let start = boot_seconds(&text("/proc/stat")).zip(stat.as_ref());
    for (metric, number) in [
        (catalogue::PROCESS_CPU, stat.as_ref().map(|stat| stat.cpu_ticks as f64 / ticks)),
        (catalogue::PROCESS_START, start.map(|(boot, stat)| boot + stat.start_ticks as f64 / ticks)),
        (catalogue::PROCESS_THREADS, stat.as_ref().map(|stat| stat.threads as f64)),
        (catalogue::PROCESS_VIRTUAL, stat.as_ref().map(|stat| stat.virtual_bytes as f64)),
        (
            catalogue::PROCESS_RESIDENT,
            stat.as_ref().map(|stat| stat.resident_pages as f64 * rustix::param::page_size() as f64),
        ),
        (catalogue::PROCESS_OPEN_FDS, open_descriptors().map(|count| count as f64)),
        (catalogue::PROCESS_MAX_FDS, descriptors_max(&text("/proc/self/limits"))),
    ] {
        if let Some(number) = number {
            page.single(&metric, number);
        }
    }
}

/// What is used of `/proc/self/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn of(text: &str) -> Option<Self> {
        // The second field is the program's name, which may hold anything: what follows is counted from its last parenthesis.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: number(14)?.checked_add(number(15)?)?,
            threads: number(20)?,
            start_ticks: number(22)?,
            virtual_bytes: number(23)?,
            resident_pages: number(24)?,
        })
    }
}

/// When the host began, in seconds of Unix time.
fn boot_seconds(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// The soft limit on descriptors.
fn descriptors_max(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        number => number.parse().ok(),
    }
}

/// Since Linux 6.2 the folder's size is the number of descriptors; before, they are counted one by one.
fn open_descriptors() -> Option<u64> {
    let folder = "/proc/self/fd";
    match fs::metadata(folder).ok()?.len() {
        // The listing itself takes one.
        0 => Some((fs::read_dir(folder).ok()?.count() as u64).saturating_sub(1)),
        known => Some(known),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::exposition::Format;

    #[test]
    fn what_the_system_says_is_read_whatever_the_programs_name() {
        let stat = "17 (a) b (c) S 1 17 17 0 -1 4194560 900 0 0 0 120 30 0 0 20 0 9 0 5000 1000000 2048 18446744073709551615\n";
        let expected =
            Stat { cpu_ticks: 150, threads: 9, start_ticks: 5000, virtual_bytes: 1_000_000, resident_pages: 2048 };
        assert_eq!(Stat::of(stat), Some(expected));
        for cut in 0..60 {
            assert_eq!(Stat::of(&stat[..cut]), None);
        }
        assert_eq!(boot_seconds("cpu 1 2 3\nbtime 1700000000\nprocesses 5\n"), Some(1_700_000_000.0));
        assert_eq!(boot_seconds("cpu 1\n"), None);
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(descriptors_max(limits), Some(1024.0));
        assert_eq!(descriptors_max("Max open files  unlimited unlimited files\n"), Some(f64::INFINITY));
        assert_eq!(descriptors_max(""), None);
    }

    #[test]
    fn this_process_is_there_and_opening_a_file_is_seen() {
        let number = |name: &str| -> f64 {
            let mut page = Page::new(Format::Text, 0);
            write(&mut page);
            let text = page.finish();
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("{name} ")))
                .unwrap_or_else(|| panic!("{name}: {text}"));
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let start = number("process_start_time_seconds");
        assert!((now - 3600.0..now + 60.0).contains(&start), "{start} {now}");
        assert!(number("process_resident_memory_bytes") > 500_000.0);
        assert!(number("process_virtual_memory_bytes") > number("process_resident_memory_bytes"));
        assert!(number("process_threads") >= 1.0);
        let before = number("process_open_fds");
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let with = number("process_open_fds");
        assert!(with >= before + 25.0 && with < number("process_max_fds"), "{before} {with}");
        drop(files);
    }
}
