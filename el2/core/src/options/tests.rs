use super::*;
use std::string::{String, ToString};
use std::vec::Vec;

fn parse(line: &str) -> (Options, Vec<String>) {
    let mut problems = Vec::new();
    let options = Options::parse(line, |problem| problems.push(problem.to_string()));
    (options, problems)
}

#[test]
fn nothing_asked_is_nothing_masked_and_quiet() {
    let (options, problems) = parse("  \t ");
    assert!(problems.is_empty());
    assert_eq!(options.log, LogLevel::Warn);
    assert_eq!(options.crash, CrashAction::Spin);
    assert_eq!(options.mask, Features::ALL);
    assert!(!options.reserve_counter);
}

#[test]
fn every_feature_can_be_masked() {
    let (options, problems) =
        parse("ha=off hd=off tlbirange=off ttl=off fwb=off vmid=8 bbm=0 epoch=off counter=on");
    assert!(problems.is_empty());
    assert_eq!(options.mask.to_string(), "none");
    assert!(!options.mask.flush_epoch);
    assert!(options.reserve_counter);
}

#[test]
fn each_option_touches_itself_alone() {
    for (word, masked) in [
        ("ha=off", "ha"),
        ("hd=off", "hd"),
        ("tlbirange=off", "tlbirange"),
        ("ttl=off", "ttl"),
        ("fwb=off", "fwb"),
        ("vmid=8", "vmid=16"),
        ("bbm=1", "bbm=2"),
        ("bbm=0", "bbm=1 bbm=2"),
        ("epoch=off", "epoch"),
        ("ha=on", "none"),
        ("epoch=on", "none"),
    ] {
        let (options, problems) = parse(word);
        assert!(problems.is_empty(), "{word}");
        assert_eq!(Features::ALL.beyond(options.mask).to_string(), masked, "{word}");
    }
}

#[test]
fn the_vmid_space_can_be_shrunk() {
    for bits in [3, 4, 5, 6, 7, 8, 16] {
        let (options, problems) = parse(&std::format!("vmid={bits}"));
        assert!(problems.is_empty(), "{bits}");
        assert_eq!(options.mask, Features { vmid_bits: bits, ..Features::ALL });
    }
    for word in ["vmid=2", "vmid=9", "vmid=15", "vmid=17", "vmid="] {
        assert_eq!(parse(word).1.len(), 1, "{word}");
    }
}

#[test]
fn levels_and_actions_are_read() {
    let (options, _) = parse("log=trace crash=semihosting");
    assert_eq!((options.log, options.crash), (LogLevel::Trace, CrashAction::Semihosting));
    let (options, _) = parse("log=off crash=off");
    assert_eq!((options.log, options.crash), (LogLevel::Off, CrashAction::Off));
    let (options, _) = parse("crash=reset log=error");
    assert_eq!((options.log, options.crash), (LogLevel::Error, CrashAction::Reset));
    assert!(LogLevel::Error < LogLevel::Info);
}

#[test]
fn room_for_memory_is_in_gib() {
    assert_eq!(parse("log=off").0.hot_gib, None);
    assert_eq!(parse("hot=0").0.hot_gib, Some(0));
    assert_eq!(parse("hot=1024").0.hot_gib, Some(1024));
    for word in ["hot=1025", "hot=-1", "hot=1G", "hot="] {
        assert_eq!(parse(word).1.len(), 1, "{word}");
    }
}

#[test]
fn the_last_word_counts() {
    assert_eq!(parse("log=info log=debug").0.log, LogLevel::Debug);
}

#[test]
fn what_is_unknown_is_told_and_the_rest_still_counts() {
    let (options, problems) = parse("quiet log=loud vmid=12 vmid=-8 bbm=3 speed=9 ttl=off");
    assert_eq!(options.mask.to_string(), "ha hd tlbirange fwb vmid=16 bbm=1 bbm=2");
    assert_eq!(options.log, LogLevel::Warn);
    assert_eq!(problems.len(), 6);
    assert!(problems[0].starts_with("option `quiet` ignored: known are log=off|error|"));
    assert!(problems[0].ends_with(" counter=on|off hot=0..1024"));
    assert_eq!(
        problems[1],
        "option `log=loud` ignored: the value is one of off|error|warn|info|debug|trace"
    );
    assert_eq!(problems[2], "option `vmid=12` ignored: the value is one of 3|4|5|6|7|8|16");
}
