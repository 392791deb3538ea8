//! What the TLS of a configuration is made of.

use ringway_config::model::Config;

/// A hash of the contents of all files that the TLS of a configuration is made of.
pub(crate) fn digest(config: &Config) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for path in config.files() {
        hash.update(path.as_os_str().as_encoded_bytes());
        // A file that is missing is found out when it is read.
        hash.update(&ringway_config::read_bytes(path).unwrap_or_default());
    }
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Directory;
    use super::*;

    #[test]
    fn a_digest_changes_with_each_file_that_is_named() {
        let directory = Directory::new();
        let (certificate, key) = directory.pair("a", &["a.example"]);
        let text = format!(
            "listeners: [ {{ name: l, address: \"127.0.0.1:0\", service: s, tls: {{ certificates: [ {{ certificate: {certificate:?}, \
             key: {key:?} }} ] }} }} ]\nservices: [ {{ name: s, backends: [ {{ id: a, address: \"127.0.0.1:9\" }} ] }} ]\n"
        );
        let config =
            ringway_config::load_str("t.yaml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}")).config;
        let before = digest(&config);
        assert_eq!(before, digest(&config));
        directory.write("a.key", "another");
        let after = digest(&config);
        assert_ne!(before, after);
        std::fs::remove_file(&certificate).unwrap();
        assert_ne!(after, digest(&config));
    }
}
