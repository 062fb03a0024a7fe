//! The crate decides and touches nothing of the world: what it may depend on is a short list.

use std::process::Command;

// CB-42: with nothing here that could run a task, none can be left behind.
#[test]
fn cb_42_the_only_dependencies_are_those_that_cannot_touch_the_world() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-p", "omega-policy", "-e", "normal", "--depth", "1", "--prefix", "none"])
        .args(["--all-features", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout);
    let names: Vec<_> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names.first(), Some(&"omega-policy"));
    let foreign: Vec<_> = names[1..].iter().filter(|name| !["serde", "thiserror"].contains(name)).collect();
    assert!(foreign.is_empty(), "omega-policy may not depend on {foreign:?}");
}
