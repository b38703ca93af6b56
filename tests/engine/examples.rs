//! The examples do what they say.

#[path = "../../engine/examples/thousand_files.rs"]
#[allow(dead_code, reason = "its main function")]
mod thousand_files;

#[test]
fn a_thousand_files_are_read_in_every_way() {
    let times = thousand_files::compare(100).unwrap();
    assert_eq!(times.len(), 4);
}
