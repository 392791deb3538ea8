//! The fleet's page: files that are a part of the binary. They show nothing that is not asked for at other paths, so anybody may have them.

use super::response::Body;
use hyper::{Method, Response};
use ringway_page::File;

const FILES: &[File] = &[
    File::html("/", include_str!("page/index.html")),
    File::script("/page/page.js", include_str!("page/page.js")),
    File::script("/page/actions.js", include_str!("page/actions.js")),
    File::script("/page/changes.js", include_str!("page/changes.js")),
    File::script("/page/difference.js", include_str!("page/difference.js")),
    File::script("/page/overview.js", include_str!("page/overview.js")),
    File::script("/page/service.js", include_str!("page/service.js")),
];

/// A file of the page, if that is what is asked for.
pub(super) fn respond(parts: &http::request::Parts) -> Option<Response<Body>> {
    let file = ringway_page::find(FILES, parts.uri.path())?;
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    reads.then(|| ringway_page::encoded(file.response(), &parts.headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_served_and_keeps_to_the_rules_of_pages() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/page");
        ringway_page::assert_kept_to(FILES, &folder);
    }
}
