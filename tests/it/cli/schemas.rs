//! The JSON documents and `docs/schemas/` say the same: every document that a transcript holds fits the schema that it names, with no
//! field left out and none undocumented; every schema is used.
//!
//! The checker knows the few words of JSON Schema that ours use, and fails at any other, so that no schema promises what nobody checks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::stage::Stage;
use super::{REASON, asked};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas")
}

fn schema(file: &str) -> Value {
    let text = std::fs::read_to_string(folder().join(file)).unwrap_or_else(|_| panic!("no schema {file}"));
    serde_json::from_str(&text).unwrap()
}

/// Checks each line that is a JSON document against the schema that it names.
#[track_caller]
pub(crate) fn check_lines(text: &str) {
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let document: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        if let Err(why) = check(&document) {
            panic!("{why}\nin {line}");
        }
    }
}

/// Whether a document fits the schema that it names; the name.
fn check(document: &Value) -> Result<String, String> {
    let name = document["schema"].as_str().ok_or("it names no schema")?;
    let file = format!("{name}.json");
    fits(document, &schema(&file), &file, "")?;
    Ok(name.to_owned())
}

/// Whether a value fits; `file` is where the schema stands, `at` where the value does.
fn fits(value: &Value, schema: &Value, file: &str, at: &str) -> Result<(), String> {
    let words = schema.as_object().ok_or_else(|| format!("{file}: no schema at {at}"))?;
    for (word, says) in words {
        match word.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" | "required" | "additionalProperties" => {}
            "$ref" => fits_ref(value, says.as_str().unwrap(), file, at)?,
            "type" => fits_type(value, says, at)?,
            "const" if value == says => {}
            "enum" if says.as_array().unwrap().contains(value) => {}
            "const" | "enum" => return Err(format!("{at}: {value} is not {says}")),
            "format" => fits_format(value, says, at)?,
            "properties" => fits_object(value, words, file, at)?,
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    fits(item, says, file, &format!("{at}/{index}"))?;
                }
            }
            "anyOf" => {
                let tries: Vec<_> = says.as_array().unwrap().iter().map(|one| fits(value, one, file, at)).collect();
                if tries.iter().all(Result::is_err) {
                    return tries.into_iter().next().unwrap();
                }
            }
            other => panic!("{file}: the checker does not know {other:?}"),
        }
    }
    Ok(())
}

fn fits_ref(value: &Value, to: &str, file: &str, at: &str) -> Result<(), String> {
    match to.strip_prefix("#/$defs/") {
        Some(name) => fits(value, &schema(file)["$defs"][name], file, at),
        None => fits(value, &schema(to), to, at),
    }
}

fn fits_type(value: &Value, types: &Value, at: &str) -> Result<(), String> {
    let is = |name: &str| match name {
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("the checker does not know the type {other:?}"),
    };
    let names: Vec<&str> = match types {
        Value::Array(names) => names.iter().map(|name| name.as_str().unwrap()).collect(),
        name => vec![name.as_str().unwrap()],
    };
    if names.iter().any(|name| is(name)) { Ok(()) } else { Err(format!("{at}: {value} is no {types}")) }
}

/// Times in UTC; `TIME` is how a transcript has them.
fn fits_format(value: &Value, format: &Value, at: &str) -> Result<(), String> {
    assert_eq!(format, "date-time");
    match value.as_str() {
        Some(text) if text != "TIME" && !(text.ends_with('Z') && hallpass::time::Timestamp::parse(text).is_ok()) => {
            Err(format!("{at}: {text:?} is no time in UTC"))
        }
        _ => Ok(()),
    }
}

/// All that is required is there, and nothing that is not documented.
fn fits_object(value: &Value, schema: &serde_json::Map<String, Value>, file: &str, at: &str) -> Result<(), String> {
    let Some(members) = value.as_object() else { return Ok(()) };
    let properties = schema["properties"].as_object().unwrap();
    assert_eq!(schema["additionalProperties"], json!(false), "{file} at {at} is open");
    for name in schema["required"].as_array().unwrap() {
        let name = name.as_str().unwrap();
        assert!(properties.contains_key(name), "{file} requires {name:?}, which it does not describe");
        if !members.contains_key(name) {
            return Err(format!("{at}: {name:?} is missing"));
        }
    }
    for (name, member) in members {
        let describes = properties.get(name).ok_or_else(|| format!("{at}: {name:?} is not documented"))?;
        fits(member, describes, file, &format!("{at}/{name}"))?;
    }
    Ok(())
}

/// All documents in all transcripts: standard output and standard error.
fn documents() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder().join("../../tests/cli")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for line in
            text.lines().map(|line| line.strip_prefix("! ").unwrap_or(line)).filter(|line| line.starts_with('{'))
        {
            // What differs from run to run has a name there; this one stands for a number.
            let line = line.replace("UNIX", "0");
            let document = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{}: {e}: {line}", path.display()));
            found.push((path.display().to_string(), document));
        }
    }
    found
}

#[test]
fn every_document_in_the_transcripts_fits_its_schema_and_every_schema_is_used() {
    // These two are checked where they are made: they differ from machine to machine.
    let mut used = BTreeSet::from(["hallpass.demo.v1".to_owned(), "hallpass.doctor.v1".to_owned()]);
    for (path, document) in documents() {
        used.insert(check(&document).unwrap_or_else(|why| panic!("{path}: {why}\n{document}")));
    }
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: BTreeSet<String> = files.filter_map(|file| file.strip_suffix(".json").map(str::to_owned)).collect();
    assert_eq!(names, used);
    for name in &names {
        assert_eq!(schema(&format!("{name}.json"))["$id"], format!("{name}.json"));
    }
}

#[test]
fn a_field_too_many_and_a_field_too_few_are_both_found() {
    for (path, document) in documents() {
        let name = check(&document).unwrap();
        let mut more = document.clone();
        more.as_object_mut().unwrap().insert("undocumented".to_owned(), json!(1));
        assert!(check(&more).is_err(), "{path}: {document}");
        for required in schema(&format!("{name}.json"))["required"].as_array().unwrap() {
            let mut less = document.clone();
            less.as_object_mut().unwrap().remove(required.as_str().unwrap());
            assert!(check(&less).is_err(), "{path}: {required} {document}");
        }
    }
    let wrong = json!({ "schema": "hallpass.logout.v1", "profile": 7, "everywhere": false });
    assert_eq!(check(&wrong), Err("/profile: 7 is no \"string\"".to_owned()));
}

#[test]
fn every_command_with_an_answer_has_it_as_a_document() {
    let mut stage = Stage::new();
    let id = asked(&mut stage);
    stage.types("bob", &["approve", &id, "-y", "--json"]);
    stage.types("alice", &["wait", &id, "--json"]);
    stage.types("alice", &["show", &id, "--json"]);
    stage.types("alice", &["status", "--json"]);
    stage.types("alice", &["extend", &id, "--for", "10m", "--no-wait", "--json"]);
    let deny = ["deny", &id, "--reason", "finish up", "--json"];
    stage.types("bob", &deny);
    stage.types("alice", &["setup", "--hosts", "web-*", "--json"]);
    stage.types("alice", &["setup", "--undo", "--json"]);
    stage.types("alice", &["end", &id, "--json"]);
    let second = stage.as_person("alice", &["request", "web-1", "--reason", REASON, "--no-wait", "--json"]).field("id");
    stage.types("alice", &["cancel", &second, "--json"]);
    let (policy, broken, out) = (stage.shown("service/policy.toml"), stage.shown("broken.toml"), stage.shown("log"));
    stage.write("broken.toml", "version = 1\nnonsense = 2\n");
    let question = ["--person", "alice@example.com", "--host", "web-1", "--as", "deploy", "--for", "30m"];
    let explain = [&["policy", "explain", &policy][..], &question, &["--reason", REASON, "--json"]].concat();
    let refused = [&["policy", "explain", &policy][..], &question, &["--reason", "x", "--json"]].concat();
    for arguments in [
        &["policy", "apply", &policy, "-y", "--json"][..],
        &["policy", "show", "--json"],
        &["policy", "history", "--json"],
        &["policy", "check", &policy, "--json"],
        &["policy", "check", &broken, "--json"],
        &["policy", "test", &policy, "--json"],
        &["policy", "diff", &policy, &policy, "--json"],
        &["policy", "diff", &policy, &broken, "--json"],
        &explain,
        &refused,
        &["policy", "explain", &broken, "--person", "alice@example.com", "--host", "web-1", "--as", "deploy", "--json"],
        &["audit", "show", "1", "--json"],
        &["audit", "export", "--out", &out, "--json"],
        &["audit", "verify", &out, "--json"],
        &["ca", "export", "--json"],
        &["known-hosts", "--json"],
        &["man", "--out", &stage.shown("man"), "--json"],
        &["help", "HP-111", "--json"],
        &["help", "codes", "--json"],
        &["logout", "--json"],
    ] {
        stage.types("omar", arguments);
    }
    let text = std::fs::read_to_string(stage.path("log")).unwrap();
    stage.write("twisted", &text.replacen("alice", "mallory", 1));
    let twisted = stage.shown("twisted");
    assert_eq!(stage.types("omar", &["audit", "verify", &twisted, "--json"]).code, 1);
    let answers = stage.shown("answers.toml");
    assert_eq!(stage.types("omar", &["init", "--answers", &answers, "--dry-run", "--json"]).code, 0);
    // What a doctor finds is this machine's: checked, and not written down.
    check_lines(&stage.as_person("alice", &["doctor", "--json"]).out);
    stage.check("json");
}
