//! What a member says of its API, held against what it does: by a validator of schemas, and by a client that is generated.

use crate::common::control::{Cluster, FleetProxy, Said, run, service};
use crate::common::{free_address, require, require_python};

/// A script of `tests/python`, run where `directory` is.
fn python(directory: &str, script: &str, arguments: &[&str]) -> Said {
    let script = format!("{}/tests/python/{script}", env!("CARGO_MANIFEST_DIR"));
    // What is beside the script is not what it imports.
    let there = format!("cd {directory:?} && PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1 exec python3 \"$0\" \"$@\"");
    run("sh", &[&["-c", &there, &script], arguments].concat())
}

#[test]
fn every_answer_is_as_the_description_says() {
    if require("python3").is_none() || require_python("jsonschema, openapi_spec_validator").is_none() {
        return;
    }
    let mut cluster = Cluster::of(1, "");
    let document = service(&[("a", free_address()), ("b", free_address())]);
    assert!(cluster.control(&["apply", &cluster.write("main.yaml", &document), "--yes"]).status.success());
    let _proxy = FleetProxy::start(&cluster, "real", "");
    let learner = cluster.join(&["--learner"]);
    let out = python(&cluster.path(""), "openapi_answers.py", &[&cluster.urls[0], &cluster.urls[learner]]);
    assert!(out.status.success(), "{}\n{}", out.text(), out.error());
}

#[test]
fn a_client_that_is_generated_from_the_description_works() {
    if require("python3").is_none() || require_python("openapi_python_client").is_none() {
        return;
    }
    let cluster = Cluster::of(1, "");
    let (description, client) = (format!("{}/openapi.json", cluster.urls[0]), cluster.path("client"));
    // Its default hooks make the code pretty.
    let config = cluster.write("generator.yaml", "post_hooks: []\n");
    let generated = run(
        "python3",
        &[
            "-m",
            "openapi_python_client",
            "generate",
            "--url",
            &description,
            "--meta",
            "none",
            "--output-path",
            &client,
            "--config",
            &config,
            "--fail-on-warning",
        ],
    );
    let said = format!("{}{}", generated.text(), generated.error());
    assert!(generated.status.success() && !said.to_lowercase().contains("warning"), "{said}");
    let out = python(&cluster.path(""), "openapi_client.py", &[&cluster.urls[0]]);
    assert!(out.status.success() && out.text() == "done\n", "{}\n{}", out.text(), out.error());
}
