//! The page: files that are a part of the binary.

use super::reply::Reply;
use hyper::header::HeaderMap;
use ringway_page::File;

const FILES: &[File] = &[
    File::html("/", include_str!("page/index.html")),
    File::script("/page/page.js", include_str!("page/page.js")),
    File::script("/page/actions.js", include_str!("page/actions.js")),
    File::script("/page/changes.js", include_str!("page/changes.js")),
    File::script("/page/curl.js", include_str!("page/curl.js")),
    File::script("/page/curl_options.js", include_str!("page/curl_options.js")),
    File::script("/page/explain.js", include_str!("page/explain.js")),
    File::script("/page/keys.js", include_str!("page/keys.js")),
    File::script("/page/overview.js", include_str!("page/overview.js")),
    File::script("/page/request.js", include_str!("page/request.js")),
    File::script("/page/service.js", include_str!("page/service.js")),
    File::script("/page/shell_words.js", include_str!("page/shell_words.js")),
];

/// The file at a path.
pub(super) fn file(path: &str) -> Option<&'static File> {
    ringway_page::find(FILES, path)
}

pub(super) fn serve(file: &File, asked: &HeaderMap) -> Reply {
    ringway_page::encoded(file.response(), asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_served_and_keeps_to_the_rules_of_pages() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/page");
        ringway_page::assert_kept_to(FILES, &folder);
    }
}
