//! Where a value stands in a request: a name of the path, a query parameter, a header, a member of the JSON body.
//!
//! Data only. `raw.rs` reads it from the catalogue; `ask/value.rs` finds the value.

use http::HeaderName;

/// One step into a JSON document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The member's name.
    pub name: Box<str>,
    /// Whether its value is an array, each element of which is meant.
    pub each: bool,
}

/// A path of members from the top of a JSON document, such as `run.info.run_id` or `tools[].genie_space.id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    text: Box<str>,
    steps: Vec<Step>,
}

impl Member {
    /// Reads `a`, `a.b`, `a[]`, `a[].b.c`.
    ///
    /// # Errors
    /// A sentence that names the fault.
    pub fn parse(text: &str) -> Result<Self, String> {
        let steps = text
            .split('.')
            .map(|step| {
                let (name, each) = step
                    .strip_suffix("[]")
                    .map_or((step, false), |name| (name, true));
                let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
                let named = !name.is_empty() && name.bytes().all(plain);
                named.then(|| Step {
                    name: name.into(),
                    each,
                })
            })
            .collect::<Option<Vec<Step>>>()
            .ok_or_else(|| format!("`{text}` is no path of members such as a.b or a[].b"))?;
        Ok(Self {
            text: text.into(),
            steps,
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// From the top inwards; never empty.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// Where one value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A name of the path template.
    Path(Box<str>),
    /// A query parameter.
    Query(Box<str>),
    /// A header.
    Header(HeaderName),
    /// A member of the JSON body.
    Body(Member),
}

impl Place {
    /// Whether the body must be read to find it.
    pub fn is_in_body(&self) -> bool {
        matches!(self, Self::Body(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_paths_are_read_and_others_refused() {
        let member = Member::parse("tools[].genie_space.id").unwrap();
        let steps: Vec<_> = member.steps().iter().map(|s| (&*s.name, s.each)).collect();
        assert_eq!(
            steps,
            [("tools", true), ("genie_space", false), ("id", false)]
        );
        for bad in ["", ".", "a.", "a..b", "[]", "a[0]", "a[]b", "a b"] {
            assert!(Member::parse(bad).is_err(), "{bad}");
        }
    }
}
