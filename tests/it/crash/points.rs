//! The list of fail points is that of the source.

use std::collections::BTreeSet;
use std::path::Path;

/// The names that `fail::point` is called with, in the files below `folder`.
fn called(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            called(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let calls = text.split("fail::point(\"").skip(1);
            names.extend(calls.map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
}

#[test]
fn every_fail_point_is_in_the_list_that_the_crash_tests_go_through() {
    let mut names = BTreeSet::new();
    called(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut names);
    let listed: BTreeSet<String> = hallpass::fail::POINTS.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(names, listed);
    assert_eq!(listed.len(), hallpass::fail::POINTS.len(), "a point is listed twice");
}
