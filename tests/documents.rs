//! The documents say what the program does: their examples are loaded by tests, and their log lines
//! stand in the code.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::fs;
use std::path::{Path, PathBuf};

use rules::directive::Keepalive;

const READMES: [&str; 2] = ["README.md", "README.zh-CN.md"];
const DIRECTIVES: [&str; 2] = ["docs/directives.md", "docs/directives.zh-CN.md"];

/// What stands for something else in the log lines of the documents.
const PLACEHOLDERS: [&str; 12] = [
    "DIRECTIVE",
    "HOST",
    "K",
    "M",
    "N",
    "OUTCOME",
    "PARAMETER",
    "REASON",
    "STATUS",
    "URL",
    "VALUE",
    "WHAT",
];

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files below a directory whose names end in `extension`.
fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found
}

/// The text of the code blocks of a language.
fn blocks<'d>(document: &'d str, language: &str) -> Vec<&'d str> {
    let start = format!("```{language}\n");
    document.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// What stands between backticks in a line.
fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The log lines in the tables of a document, and the reasons that they give.
fn log_lines(document: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for row in document.lines().filter(|line| line.starts_with("| ")) {
        let mut cells = row.trim_matches('|').split(" | ").map(str::trim);
        let first = cells.next().unwrap();
        let is_level =
            ["debug", "info", "notice", "warn", "error", "alert", "emerg"].contains(&first);
        let cell = if is_level { cells.next().unwrap() } else { first };
        lines.extend(code_spans(cell).map(str::to_owned));
    }
    lines
}

/// The constant parts of a log line.
fn fragments(line: &str) -> Vec<String> {
    let mut fragments = vec![String::new()];
    for word in line.split_inclusive(|char: char| !char.is_ascii_alphabetic()) {
        let letters = word.trim_end_matches(|char: char| !char.is_ascii_alphabetic());
        if PLACEHOLDERS.contains(&letters) {
            fragments.push(word.strip_prefix(letters).unwrap().to_owned());
        } else {
            fragments.last_mut().unwrap().push_str(word);
        }
    }
    // The cause of an error is a text of its own, behind a comma; a number may be a constant's.
    let parts = fragments.iter().flat_map(|fragment| fragment.split(", "));
    parts
        .map(|part| part.trim_matches(|char: char| !char.is_ascii_alphabetic()).to_owned())
        .filter(|part| !part.is_empty())
        .collect()
}

/// The source, with string literals as they print: no escaped quotes, no line ends.
fn source() -> String {
    let mut source = String::new();
    for path in files("src", "rs").into_iter().chain(files("rules/src", "rs")) {
        source.push_str(&read(path));
    }
    let mut joined = String::new();
    let mut rest = source.as_str();
    while let Some((before, after)) = rest.split_once("\\\n") {
        joined.push_str(before);
        rest = after.trim_start();
    }
    joined.push_str(rest);
    joined.replace("\\\"", "\"")
}

#[test]
fn every_nginx_example_of_the_readmes_is_part_of_a_whole_one() {
    let wholes: Vec<String> = files("nginx-conf", "conf").iter().map(read).collect();
    for readme in READMES {
        let document = read(readme);
        let examples = blocks(&document, "nginx");
        assert!(!examples.is_empty(), "{readme}");
        for example in examples {
            assert!(wholes.iter().any(|whole| whole.contains(example)), "{readme}:\n{example}");
        }
    }
}

#[test]
fn both_languages_have_the_same_examples_reference_and_log_lines() {
    let [english, chinese] = READMES.map(read);
    for language in ["nginx", "json", "toml", "yaml"] {
        assert_eq!(blocks(&english, language), blocks(&chinese, language), "{language}");
    }
    let reference = |document: &str| -> Vec<String> {
        let rows = document.lines().filter(|line| line.starts_with("| [`docker_"));
        rows.map(|row| row.replace(".zh-CN", "")).collect()
    };
    assert_eq!(reference(&english), reference(&chinese));

    let [english, chinese] = DIRECTIVES.map(|path| log_lines(&read(path)));
    assert_eq!(english, chinese);
}

#[test]
fn every_log_line_of_the_documents_stands_in_the_source() {
    let source = source();
    for path in DIRECTIVES {
        let lines = log_lines(&read(path));
        assert!(lines.len() > 15, "{path} has {lines:?} only");
        for line in lines {
            for fragment in fragments(&line) {
                assert!(source.contains(&fragment), "{path}: \"{fragment}\" of `{line}`");
            }
        }
    }
}

#[test]
fn every_directive_and_variable_is_documented() {
    fn quoted<'s>(source: &'s str, start: &str) -> Vec<&'s str> {
        source.split(start).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
    }
    let (source, table) = (source(), read("src/variables.rs"));
    let directives = quoted(&source, "const NAME: &'static CStr = c\"");
    // Those of follow.conf are the module's own.
    let mut variables = quoted(&table, "    (\"docker_");
    variables.retain(|name| !name.starts_with("target"));
    assert!(directives.len() > 10 && variables.len() > 10, "{directives:?} {variables:?}");

    for path in DIRECTIVES {
        let document = read(path);
        for name in &directives {
            assert!(document.contains(&format!("\n## {name}\n")), "{path}: {name}");
        }
        for name in &variables {
            assert!(document.contains(&format!("\n- `$docker_{name}`")), "{path}: {name}");
        }
    }
    for readme in READMES {
        let document = read(readme);
        for name in &directives {
            assert!(document.contains(&format!("\n| [`{name}`](")), "{readme}: {name}");
        }
    }
    let changes = read("CHANGELOG.md");
    let words: Vec<&str> =
        changes.split(|char: char| !matches!(char, '"' | '$' | '_' | 'a'..='z')).collect();
    for name in &directives {
        assert!(words.contains(&format!("\"{name}\"").as_str()), "CHANGELOG.md: {name}");
    }
    for name in &variables {
        assert!(words.contains(&format!("$docker_{name}").as_str()), "CHANGELOG.md: {name}");
    }
}

#[test]
fn the_default_of_docker_keepalive_is_the_documented_one() {
    let Keepalive { connections, timeout, requests, time } = Keepalive::default();
    let (timeout, time) = (timeout / 1000, time / 3_600_000);
    let reference = format!(
        "`docker_keepalive {connections} timeout={timeout}s requests={requests} time={time}h;`"
    );
    for path in DIRECTIVES {
        assert!(read(path).contains(&reference), "{path}: {reference}");
    }
    for readme in READMES {
        assert!(read(readme).contains(&format!("| `{connections}` | http |")), "{readme}");
    }
}

#[test]
fn every_test_that_security_names_exists() {
    let mut named = 0;
    let mut file = String::new();
    for row in read("SECURITY.md").lines().filter(|line| line.starts_with("| ")) {
        for span in code_spans(row) {
            if span.ends_with(".rs") && !span.starts_with("src/") {
                file = read(format!("tests/{span}"));
            } else if !file.is_empty() && span.matches('_').count() > 2 {
                named += 1;
                assert!(file.contains(&format!("\nfn {span}() {{")), "{span}");
            }
        }
    }
    assert!(named > 30, "{named}");
}
