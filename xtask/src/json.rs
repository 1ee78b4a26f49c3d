//! Writes what programs read: objects of strings, one a line (RFC 8259).

use std::fmt::Write;

/// Writes an object.
pub fn object(fields: &[(&str, &str)]) -> String {
    let fields = fields.iter().map(|(name, value)| format!("{}:{}", string(name), string(value)));
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\0'..='\x1f' => write!(quoted, "\\u{:04x}", character as u32).expect("a string"),
            _ => quoted.push(character),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_has_for_itself_is_escaped() {
        let text = object(&[("why", "a \"b\" \\ c\n\x1b[0m ä"), ("x", "")]);
        assert_eq!(text, r#"{"why":"a \"b\" \\ c\u000a\u001b[0m ä","x":""}"#);
    }
}
