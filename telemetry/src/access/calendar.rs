//! Times as text, in UTC.

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// A second of the calendar. Source: Hinnant, "chrono-compatible low-level date algorithms".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Civil {
    pub(super) year: u64,
    pub(super) month: u64,
    pub(super) day: u64,
    pub(super) hour: u64,
    pub(super) minute: u64,
    pub(super) second: u64,
}

impl Civil {
    pub(super) fn of(unix_seconds: u64) -> Self {
        let (days, seconds) = (unix_seconds / 86_400, unix_seconds % 86_400);
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        Self { year, month, day, hour, minute, second }
    }
}

/// `2026-11-29T20:34:06.123Z`.
pub(super) fn push_rfc3339(out: &mut Vec<u8>, unix_millis: u64) {
    let at = Civil::of(unix_millis / 1_000);
    for (value, digits, behind) in [
        (at.year, 4, b'-'),
        (at.month, 2, b'-'),
        (at.day, 2, b'T'),
        (at.hour, 2, b':'),
        (at.minute, 2, b':'),
        (at.second, 2, b'.'),
        (unix_millis % 1_000, 3, b'Z'),
    ] {
        push_digits(out, value, digits);
        out.push(behind);
    }
}

/// `29/Nov/2026:20:34:06 +0000`.
pub(super) fn push_clf(out: &mut Vec<u8>, unix_millis: u64) {
    let at = Civil::of(unix_millis / 1_000);
    push_digits(out, at.day, 2);
    out.push(b'/');
    let month = (at.month as usize).checked_sub(1).and_then(|month| MONTHS.get(month));
    out.extend_from_slice(month.copied().unwrap_or(b"---"));
    out.push(b'/');
    for (value, digits, behind) in [(at.year, 4, b':'), (at.hour, 2, b':'), (at.minute, 2, b':'), (at.second, 2, b' ')]
    {
        push_digits(out, value, digits);
        out.push(behind);
    }
    out.extend_from_slice(b"+0000");
}

fn push_digits(out: &mut Vec<u8>, value: u64, digits: u32) {
    for place in (0..digits).rev() {
        out.push(b'0' + (value / 10_u64.pow(place) % 10) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_others_write_them() {
        let text = |push: fn(&mut Vec<u8>, u64), at: u64| {
            let mut out = Vec::new();
            push(&mut out, at);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(push_rfc3339, 951_782_400_007), "2000-02-29T00:00:00.007Z");
        assert_eq!(text(push_clf, 971_211_336_999), "10/Oct/2000:20:55:36 +0000");
        assert_eq!(text(push_clf, 1_709_164_799_000), "28/Feb/2024:23:59:59 +0000");
    }
}
