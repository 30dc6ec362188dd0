//! The JSON Schema of the configuration file, for `valetkey schema` and for editors.
//!
//! Derived from the shapes of `raw.rs`: it says what may be written; bounds and agreements between keys are checked by
//! `sections.rs` and told in the descriptions.

use schemars::generate::SchemaSettings;

use super::raw::RawConfig;

/// The schema (draft 2020-12).
pub fn schema() -> serde_json::Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<RawConfig>();
    schema.insert("title".into(), "Valetkey configuration".into());
    schema.to_value()
}
