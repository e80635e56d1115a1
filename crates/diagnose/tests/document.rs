//! The names of the report are those of `docs/diagnose.md`, which promises that they are stable.

use std::collections::BTreeSet;

use waterclock_diagnose::{Check, Fault, Intermediary, Verdict};

fn names() -> [Vec<&'static str>; 4] {
    [
        Check::ALL.iter().map(|one| one.as_str()).collect(),
        Verdict::ALL.iter().map(|one| one.as_str()).collect(),
        Fault::ALL.iter().map(|one| one.as_str()).collect(),
        Intermediary::ALL.iter().map(|one| one.as_str()).collect(),
    ]
}

#[test]
fn names_are_kebab_case_and_unique() {
    for names in names() {
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        for name in names {
            let is_kebab = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
            assert!(name.bytes().all(is_kebab), "{name}");
        }
    }
}

#[test]
fn each_name_is_documented() {
    let document = include_str!("../../../docs/diagnose.md");
    for name in names().into_iter().flatten() {
        assert!(document.contains(&format!("`{name}`")), "{name}");
    }
}
