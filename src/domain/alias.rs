//! The two vocabularies of Databricks API scopes (facts 4.1) and the one this program thinks in.
//!
//! Data only. Everything is compared in the short names that tokens and error texts use; `scope.rs` calls this at its edge.

/// Older dotted name → short name. A name that is not here is its own short name.
const ALIASES: &[(&str, &str)] = &[
    ("ai-search", "vector-search"),
    ("dashboards.genie", "genie"),
    ("files.files", "files"),
    ("mcp.genie", "genie"),
    ("mcp.vectorsearch", "vector-search"),
    ("model-serving-inference", "model-serving"),
    ("serving.serving-endpoints", "model-serving"),
    ("serving.serving-endpoints-data-plane", "model-serving"),
    ("vectorsearch.vector-search-endpoints", "vector-search"),
    ("vectorsearch.vector-search-indexes", "vector-search"),
    ("workspace", "workspace.workspace"),
];

/// The short name of a scope written in either vocabulary.
pub fn short_name(scope: &str) -> &str {
    ALIASES
        .iter()
        .find(|(old, _)| *old == scope)
        .map_or(scope, |(_, short)| short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_vocabularies_meet_in_the_short_name() {
        assert_eq!(short_name("dashboards.genie"), "genie");
        assert_eq!(short_name("genie"), "genie");
        assert_eq!(short_name("catalog.connections"), "catalog.connections");
        assert!(
            ALIASES.iter().all(|(_, short)| short_name(short) == *short),
            "an alias leads to a short name at once"
        );
    }
}
