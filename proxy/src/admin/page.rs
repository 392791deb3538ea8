//! The page: files that are a part of the binary. They show nothing that is not asked for at other paths, so anybody may have them.

use super::reply::{Reply, text};
use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};

/// A file of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct File {
    pub(super) path: &'static str,
    content_type: &'static str,
    content: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! files {
    ($($path:literal $content_type:ident $file:literal),* $(,)?) => {
        &[$(File { path: $path, content_type: $content_type, content: include_str!(concat!("page/", $file)) }),*]
    };
}

const FILES: &[File] = files![
    "/" HTML "index.html",
    "/page/page.css" CSS "page.css",
    "/page/page.js" SCRIPT "page.js",
    "/page/actions.js" SCRIPT "actions.js",
    "/page/changes.js" SCRIPT "changes.js",
    "/page/charts.js" SCRIPT "charts.js",
    "/page/dom.js" SCRIPT "dom.js",
    "/page/explain.js" SCRIPT "explain.js",
    "/page/keys.js" SCRIPT "keys.js",
    "/page/live.js" SCRIPT "live.js",
    "/page/overview.js" SCRIPT "overview.js",
    "/page/request.js" SCRIPT "request.js",
    "/page/service.js" SCRIPT "service.js",
    "/page/table.js" SCRIPT "table.js",
];

/// What a browser may do with it: nothing comes from elsewhere, nothing is written in the page itself, nobody frames it.
const RULES: [(HeaderName, &str); 5] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
    // A proxy of another version has other files.
    (CACHE_CONTROL, "no-cache"),
];

/// The file at a path.
pub(super) fn file(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

pub(super) fn serve(file: &File) -> Reply {
    let mut reply = text(StatusCode::OK, file.content_type, file.content);
    for (name, value) in RULES {
        reply.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_served_and_named_by_another() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/page");
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = if name == "index.html" { "/".to_owned() } else { format!("/page/{name}") };
            assert!(file(&path).is_some(), "{name} is not served");
            let named = |file: &File| {
                file.content.contains(&format!("/{name}'")) || file.content.contains(&format!("/{name}\""))
            };
            assert!(name == "index.html" || FILES.iter().any(named), "nothing names {name}");
        }
    }

    #[test]
    fn nothing_is_written_into_the_document_as_markup_and_nothing_comes_from_elsewhere() {
        for file in FILES {
            for word in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser"]
            {
                assert!(!file.content.contains(word), "{} has {word}", file.path);
            }
            let elsewhere = file.content.replace("http://www.w3.org/2000/svg", "").replace("https://shop.example", "");
            assert!(!elsewhere.contains("://"), "{} names another origin", file.path);
        }
        assert!(!file("/").unwrap().content.contains("style="), "styles are in the style sheet");
    }
}
