//! The files of a page, which are a part of the binary. They show nothing that is not asked for at other paths, so anybody may have them.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

/// A file of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// Where it is asked for.
    pub path: &'static str,
    /// What it says.
    pub content: &'static str,
    content_type: &'static str,
}

impl File {
    /// The document.
    #[must_use]
    pub const fn html(path: &'static str, content: &'static str) -> Self {
        Self { path, content, content_type: "text/html; charset=utf-8" }
    }

    /// A style sheet.
    #[must_use]
    pub const fn css(path: &'static str, content: &'static str) -> Self {
        Self { path, content, content_type: "text/css; charset=utf-8" }
    }

    /// A module.
    #[must_use]
    pub const fn script(path: &'static str, content: &'static str) -> Self {
        Self { path, content, content_type: "text/javascript; charset=utf-8" }
    }

    /// The response that has it.
    #[must_use]
    pub fn response(&self) -> http::Response<Bytes> {
        let mut response = http::Response::new(Bytes::from_static(self.content.as_bytes()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        for (name, value) in RULES {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Files that every page is made of.
pub const SHARED: &[File] = &[
    File::css("/page/page.css", include_str!("../assets/page.css")),
    File::script("/page/charts.js", include_str!("../assets/charts.js")),
    File::script("/page/dialog.js", include_str!("../assets/dialog.js")),
    File::script("/page/dom.js", include_str!("../assets/dom.js")),
    File::script("/page/live.js", include_str!("../assets/live.js")),
    File::script("/page/shell.js", include_str!("../assets/shell.js")),
    File::script("/page/table.js", include_str!("../assets/table.js")),
];

/// What a browser may do with them: nothing comes from elsewhere, nothing is written in the page itself, nobody frames it.
const RULES: [(HeaderName, &str); 5] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
    // A process of another version has other files.
    (CACHE_CONTROL, "no-cache"),
];

/// The file at a path, of a page's own or of those that are shared.
#[must_use]
pub fn find(own: &'static [File], path: &str) -> Option<&'static File> {
    own.iter().chain(SHARED).find(|file| file.path == path)
}

/// What every page must keep to: each file of a folder is served and named by another, nothing is written as markup, and nothing comes
/// from elsewhere. For the tests of those who have a page.
///
/// # Panics
/// Where a page does not.
#[doc(hidden)]
pub fn assert_kept_to(own: &'static [File], folder: &std::path::Path) {
    let all: Vec<&File> = own.iter().chain(SHARED).collect();
    let shared = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let entries = [folder, &shared].map(|folder| std::fs::read_dir(folder).expect("the folder of a page"));
    for entry in entries.into_iter().flatten() {
        let name = entry.expect("a file of it").file_name().into_string().expect("a name in UTF-8");
        let path = if name == "index.html" { "/".to_owned() } else { format!("/page/{name}") };
        assert!(find(own, &path).is_some(), "{name} is not served");
        let named =
            |file: &&File| file.content.contains(&format!("/{name}'")) || file.content.contains(&format!("/{name}\""));
        assert!(name == "index.html" || all.iter().any(named), "nothing names {name}");
    }
    for file in all {
        for word in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser"]
        {
            assert!(!file.content.contains(word), "{} has {word}", file.path);
        }
        let elsewhere = file.content.replace("http://www.w3.org/2000/svg", "").replace("https://shop.example", "");
        assert!(!elsewhere.contains("://"), "{} names another origin", file.path);
        assert!(!file.content.contains("style="), "{}: styles are in the style sheet", file.path);
    }
}
