//! What files mean: every value of the model, the files that are named and what is warned of, of files that between them say everything that can
//! be said. Kept in `testdata/good`; what changes on purpose is written anew by `cargo run -p ringway-config --example golden`.

use crate::said::said;
use std::path::Path;

fn holds(name: &str, text: &str, golden: &str) {
    let said = said(name, text, &|_| None);
    let differs = said.lines().zip(golden.lines()).position(|(said, golden)| said != golden);
    let line = differs.unwrap_or_else(|| said.lines().count().min(golden.lines().count()));
    let shown = |text: &str| text.lines().skip(line.saturating_sub(3)).take(8).collect::<Vec<_>>().join("\n");
    assert!(said == golden, "{name}, line {}:\n{}\n--- instead of\n{}", line + 1, shown(&said), shown(golden));
}

#[test]
fn files_mean_what_they_have_meant() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/good");
    let golden = |path: &Path| std::fs::read_to_string(path.with_extension("txt")).unwrap();
    holds("example", include_str!("../../config.example.yaml"), &golden(&directory.join("example")));
    let mut checked = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let name = path.file_name().unwrap().to_str().unwrap();
            holds(name, &std::fs::read_to_string(&path).unwrap(), &golden(&path));
            checked += 1;
        }
    }
    assert!(checked >= 3, "only {checked} files");
}
