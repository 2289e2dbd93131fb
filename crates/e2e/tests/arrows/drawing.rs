//! Arrows as text: `from -> to to`, one origin on each line. A line without an arrow continues the
//! one before.

use std::collections::BTreeMap;

/// How wide a line may become.
const WIDTH: usize = 96;

/// From each origin, where its arrows may end.
pub(crate) type Arrows<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// Reads arrows.
///
/// # Panics
/// If an origin is there twice, or the first line has no arrow.
pub(crate) fn parse(text: &str) -> Arrows<'_> {
    parse_lines(text.lines())
}

/// Reads the arrows of one section.
pub(crate) fn parse_lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Arrows<'a> {
    let mut arrows = Arrows::new();
    let mut origin = None;
    let lines = lines.into_iter().map(str::trim);
    for line in lines.filter(|line| !line.is_empty()) {
        let targets = match line.split_once("->") {
            Some((from, targets)) => {
                let from = from.trim();
                assert!(!arrows.contains_key(from), "{from} has two lines");
                origin = Some(from);
                targets
            }
            None => line,
        };
        let from = origin.expect("the first line has an arrow");
        let row = arrows.entry(from).or_default();
        row.extend(targets.split_whitespace());
    }
    arrows
}

/// Splits a text at lines that end in a colon: each names what the lines below it are for.
pub(crate) fn sections(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut sections = BTreeMap::new();
    let mut title = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_suffix(':') {
            title = Some(name);
            let before = sections.insert(name, Vec::new());
            assert!(before.is_none(), "{name} has two sections");
        } else {
            let title = title.expect("the first line names a section");
            sections.entry(title).or_default().push(line);
        }
    }
    sections
}

/// Writes the arrows of one origin, broken where a line would be too wide.
pub(crate) fn line<'a>(from: &str, to: impl IntoIterator<Item = &'a String>) -> String {
    let mut lines = vec![format!("    {from} ->")];
    for name in to {
        let width = lines.last().map_or(0, String::len);
        if width + 1 + name.len() > WIDTH {
            lines.push(String::from("       "));
        }
        if let Some(last) = lines.last_mut() {
            last.push(' ');
            last.push_str(name);
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let names: Vec<String> = (100..140).map(|number| format!("name{number}")).collect();
        let text = line("a", &names) + &line("b", &[]) + "\n" + &line("c", &names[..2]);
        assert!(text.lines().all(|line| line.len() <= WIDTH));
        let read = parse(&text);
        assert_eq!(read["a"], names);
        assert!(read["b"].is_empty());
        assert_eq!(read["c"], ["name100", "name101"]);
    }

    #[test]
    fn sections_are_told_apart() {
        let text = "\n  x:\n    a -> b\n        c\n  y:\n";
        let sections = sections(text);
        assert_eq!(parse_lines(sections["x"].clone())["a"], ["b", "c"]);
        assert!(sections["y"].is_empty());
    }

    #[test]
    #[should_panic(expected = "a has two lines")]
    fn an_origin_has_one_line() {
        parse("a -> b\na -> c");
    }
}
