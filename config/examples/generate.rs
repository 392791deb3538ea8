//! Writes what is printed from the schema: `config.schema.json` and `docs/config.md`. Run it at the top of the repository.

fn main() -> std::io::Result<()> {
    let schema = serde_json::to_string_pretty(&ringway_config::json_schema())? + "\n";
    std::fs::write("config.schema.json", schema)?;
    std::fs::write("docs/config.md", ringway_config::reference())
}
