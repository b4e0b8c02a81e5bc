//! The experiments of this repository, as they are in the program: for who has the binary alone.

/// Their names, which are those of their files, and texts.
const EXPERIMENTS: [(&str, &str); 7] = [
    ("demo", include_str!("../../experiments/demo.yaml")),
    ("cifar10", include_str!("../../experiments/cifar10.yaml")),
    ("cifar10-conditional", include_str!("../../experiments/cifar10-conditional.yaml")),
    ("stl10", include_str!("../../experiments/stl10.yaml")),
    ("celebahq128", include_str!("../../experiments/celebahq128.yaml")),
    ("celebahq256", include_str!("../../experiments/celebahq256.yaml")),
    ("r3", include_str!("../../experiments/r3.yaml")),
];

/// The commented one to start from.
pub(super) const TEMPLATE: &str = include_str!("../../experiments/template.yaml");

/// The experiment of a name.
pub(super) fn experiment(name: &str) -> Option<&'static str> {
    EXPERIMENTS.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}

/// All names, for a message.
pub(super) fn names() -> String {
    EXPERIMENTS.map(|(name, _)| name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Experiment;

    #[test]
    fn names_are_those_of_the_experiments_and_none_is_left_out() {
        for (name, text) in EXPERIMENTS.into_iter().chain([("template", TEMPLATE)]) {
            let experiment = Experiment::parse(name, text, &[]).unwrap();
            assert_eq!(experiment.name, name);
            for scale in experiment.scales() {
                experiment.resolve(scale).unwrap();
            }
        }
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/experiments");
        let files = std::fs::read_dir(folder)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "yaml"));
        assert_eq!(files.count(), EXPERIMENTS.len() + 1);
    }
}
