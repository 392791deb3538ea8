//! Writes the golden messages of `testdata/bad`, and what the files of `testdata/good` mean, anew. Read the difference before you commit it.

#[path = "../tests/said.rs"]
mod said;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let good = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/good");
    let example = include_str!("../../config.example.yaml");
    std::fs::write(good.join("example.txt"), said::said("example", example, &|_| None))?;
    for entry in std::fs::read_dir(&good)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            std::fs::write(path.with_extension("txt"), said::said(&name, &std::fs::read_to_string(&path)?, &|_| None))?;
        }
    }
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/bad"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let environment = |name: &str| (name == "SET").then(|| "from-env".to_owned());
            let message = match ringway_config::load_str(&name, &std::fs::read_to_string(&path)?, &environment) {
                Ok(_) => "valid!".to_owned(),
                Err(found) => found.to_string(),
            };
            std::fs::write(path.with_extension("txt"), message + "\n")?;
        }
    }
    Ok(())
}
