//! Whether a page of somebody else's in a browser asks an admin interface for something. It can send what it likes to any
//! address that its user reaches, loopback too, but it cannot hide that it does: browsers say where a request comes from
//! (`Origin`, `Sec-Fetch-Site`), and under which name the page has found us (`Host`), which is the page's own where it has
//! made that name lead here (DNS rebinding).

/// What a request says of where it comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked<'a> {
    /// `Host`, or `:authority`.
    pub host: Option<&'a str>,
    /// `Origin`.
    pub origin: Option<&'a str>,
    /// `Sec-Fetch-Site`.
    pub fetch_site: Option<&'a str>,
}

impl Asked<'_> {
    /// Whether a page of another origin asks. Programs that are no browsers say neither.
    #[must_use]
    pub fn is_foreign_page(&self) -> bool {
        let same_site = self.fetch_site.is_none_or(|site| matches!(site, "same-origin" | "none"));
        let authority = |origin: &str| {
            let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            rest.map(str::to_ascii_lowercase)
        };
        let same_origin = self.origin.is_none_or(|origin| {
            let host = self.host.map(str::to_ascii_lowercase);
            host.is_some() && authority(origin) == host
        });
        !(same_site && same_origin)
    }

    /// Whether the name that it was asked by is one that nobody else can lead here: an IP address, `localhost`, or one of
    /// `names` (lower case). Without a name there was no browser.
    #[must_use]
    pub fn has_own_host(&self, names: &[String]) -> bool {
        let Some(host) = self.host else { return true };
        let host = host.trim();
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => match host.rsplit_once(':') {
                Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
                _ => host,
            },
        };
        if bare.parse::<std::net::IpAddr>().is_ok() {
            return true;
        }
        let name = bare.trim_end_matches('.').to_ascii_lowercase();
        name == "localhost" || name.ends_with(".localhost") || names.contains(&name)
    }

    /// Whether the name that it was asked by has no dot: a stranger cannot register it, and containers know each other by such names.
    #[must_use]
    pub fn has_short_host(&self) -> bool {
        self.host.is_some_and(|host| !host.is_empty() && !host.contains('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_others_are_told_from_programs_and_own_pages() {
        let asked = |host, origin, fetch_site| Asked { host, origin, fetch_site };
        let own = Some("127.0.0.1:9901");
        for (asked, foreign) in [
            (asked(own, None, None), false),
            (asked(own, Some("http://127.0.0.1:9901"), Some("same-origin")), false),
            (asked(own, None, Some("none")), false),
            (asked(Some("Proxy-1:9901"), Some("https://proxy-1:9901"), None), false),
            (asked(own, Some("http://evil.test"), None), true),
            (asked(own, Some("http://127.0.0.1:9902"), None), true),
            (asked(own, Some("null"), None), true),
            (asked(own, Some(""), None), true),
            (asked(own, Some("file://127.0.0.1:9901"), None), true),
            (asked(own, None, Some("cross-site")), true),
            (asked(own, None, Some("same-site")), true),
            (asked(own, Some("http://127.0.0.1:9901"), Some("cross-site")), true),
            (asked(None, Some("http://127.0.0.1:9901"), None), true),
        ] {
            assert_eq!(asked.is_foreign_page(), foreign, "{asked:?}");
        }
    }

    #[test]
    fn names_that_others_can_lead_here_are_no_own_ones() {
        let names = ["proxy-1.example.com".to_owned()];
        let is_own = |host| Asked { host: Some(host), ..Asked::default() }.has_own_host(&names);
        for host in [
            "127.0.0.1:9901",
            "10.0.0.7",
            "[::1]:9901",
            "[::1]",
            "localhost:9901",
            "LOCALHOST",
            "a.localhost",
            "localhost.",
            "proxy-1.example.com",
            "Proxy-1.Example.com.:9901",
        ] {
            assert!(is_own(host), "{host}");
        }
        for host in [
            "evil.test",
            "evil.test:9901",
            "127.0.0.1.evil.test",
            "localhost.evil.test",
            "a",
            "",
            "[evil.test]",
            "127.0.0.1:x",
        ] {
            assert!(!is_own(host), "{host}");
        }
        assert!(Asked::default().has_own_host(&[]));
    }
}
