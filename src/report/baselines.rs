//! Published numbers, from `baselines/*.yaml`: each with its source and protocol, and "not given" where it is not.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::error::{Error, Result};

/// What the files say where a source is silent.
const NOT_GIVEN: &str = "not given";

/// A value that its source may have left out.
#[derive(Clone, Debug, PartialEq)]
pub enum Published<T> {
    /// It is given.
    Given(T),
    /// It is not.
    NotGiven,
}

/// A mean, with the deviation if the source has one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// Mean.
    pub mean: f64,
    /// Standard deviation, of whatever the source took it over.
    pub std: Option<f64>,
}

/// Three decimals where the source gives them, else two.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let number = |x: f64| {
            if ((100.0 * x).round() - 100.0 * x).abs() > 1e-6 { format!("{x:.3}") } else { format!("{x:.2}") }
        };
        f.write_str(&number(self.mean))?;
        self.std.map_or(Ok(()), |std| write!(f, " ± {}", number(std)))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Mean(f64),
            Both([f64; 2]),
        }
        Ok(match Raw::deserialize(d)? {
            Raw::Mean(mean) => Self { mean, std: None },
            Raw::Both([mean, std]) => Self { mean, std: Some(std) },
        })
    }
}

impl<'de, T: de::DeserializeOwned> Deserialize<'de> for Published<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let value = yaml_serde::Value::deserialize(d)?;
        if value.as_str() == Some(NOT_GIVEN) {
            return Ok(Self::NotGiven);
        }
        yaml_serde::from_value(value).map(Self::Given).map_err(de::Error::custom)
    }
}

impl<T: fmt::Display> fmt::Display for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Given(value) => value.fmt(f),
            Self::NotGiven => f.write_str(NOT_GIVEN),
        }
    }
}

/// How numbers were measured.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    /// Feature extractor.
    pub extractor: Published<String>,
    /// How images came to its input size.
    pub resize: Published<String>,
    /// Generated images.
    pub images: Published<u64>,
    /// Split that the Fréchet distance refers to.
    pub reference: Published<String>,
    /// Number of seeds.
    pub seeds: Published<u64>,
}

/// One published result.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Block of the table.
    pub architecture: String,
    /// The architecture here, where there is one.
    pub arch: Option<String>,
    /// Name in the source.
    pub label: String,
    /// The method here, where there is one.
    pub method: Option<String>,
    /// Inception Score.
    pub is: Published<Value>,
    /// Fréchet Inception Distance.
    pub fid: Published<Value>,
}

/// Results of one protocol.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Table of the source, `text` or `-`.
    pub table: String,
    /// What it shows.
    pub title: String,
    /// Data set.
    pub dataset: String,
    /// Side of the images in pixels.
    pub image_size: u64,
    /// Whether generators know the class.
    pub conditional: bool,
    /// How numbers were measured.
    pub protocol: Protocol,
    /// Results.
    pub rows: Vec<Entry>,
}

/// What a method is said to do (the paper's Table 1).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Property {
    /// Name in the source.
    pub label: String,
    /// The method here.
    pub method: String,
    /// Prevents gradient explosion.
    pub prevents_gradient_explosion: bool,
    /// Robust.
    pub robust: bool,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baselines {
    /// Paper or harness.
    pub source: String,
    /// Where in it.
    pub reference: String,
    /// Address.
    pub url: String,
    /// Results.
    pub groups: Vec<Group>,
    /// Properties of methods.
    #[serde(default)]
    pub properties: Vec<Property>,
}

/// The files of the repository, the paper's first.
///
/// # Errors
/// Never: a test reads them.
pub fn embedded() -> Result<Vec<Baselines>> {
    let files = [
        ("paper", include_str!("../../baselines/paper.yaml")),
        ("mimicry", include_str!("../../baselines/mimicry.yaml")),
        ("pytorch-gan-collections", include_str!("../../baselines/pytorch-gan-collections.yaml")),
        ("studiogan", include_str!("../../baselines/studiogan.yaml")),
    ];
    files
        .into_iter()
        .map(|(name, text)| yaml_serde::from_str(text).map_err(|e| Error::content(name, e.to_string())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{critic, data, methods};

    #[test]
    fn every_file_is_read_and_names_what_exists() {
        let mut values = 0;
        let files = embedded().unwrap();
        for file in &files {
            for group in &file.groups {
                assert!(data::IDS.contains(&group.dataset.as_str()), "{}", group.dataset);
                for row in &group.rows {
                    assert!(row.method.as_ref().is_none_or(|m| methods::find(m).is_some()), "{row:?}");
                    let side = row.arch.as_ref().map(|a| critic::side(a) as u64);
                    assert!(side.is_none_or(|side| side == group.image_size), "{row:?}");
                    values += [&row.is, &row.fid].iter().filter(|v| ***v != Published::NotGiven).count();
                }
            }
            if file.source.starts_with("Penalty") {
                assert_eq!((file.groups.len(), file.properties.len()), (5, 5));
                let pgn = file.groups[0].rows.iter().find(|r| r.label == "PGN-GAN-CR").unwrap();
                assert_eq!(pgn.is, Published::Given(Value { mean: 8.12, std: Some(0.062) }));
                assert_eq!(file.groups[0].rows[1].fid, Published::NotGiven);
            }
        }
        // Tables 2, 4 and 5: 2·31 values less 5 that are not given, and 6; the harnesses: 18 and 10.
        assert_eq!((files.len(), values), (4, 57 + 6 + 8 + 10 + 10));
        let text = "source: a\nreference: b\nurl: c\ngroups: []\nother: 1\n";
        let error = yaml_serde::from_str::<Baselines>(text).unwrap_err().to_string();
        assert!(error.contains("unknown field `other`"), "{error}");
    }
}
