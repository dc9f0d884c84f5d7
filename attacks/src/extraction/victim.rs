//! Networks that extractions train to attack them: of a size that the attack reaches,
//! on the data of the run, in the clear or deployed.

use he_nn::data::{CLASSES, Dataset, PIXELS, SIDE};
use he_nn::model::Shape;
use he_nn::network::Network;
use he_nn::train::LayerSpec;

use crate::attack::AttackError;
use crate::network::Differentiable;
use crate::plain::Plain;
use crate::target::{
    About, Activation, Answers, Deploy, Evaluation, Grants, Made, Rows, Target, TargetError,
};
use crate::trainer::{Goal, Training, train};

/// Training images, at most.
const MOST: usize = 10_000;

/// An architecture that is attacked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plans {
    pub name: &'static str,
    pub layers: &'static [LayerSpec],
    pub activation: Activation,
    pub epochs: usize,
}

/// A target that is trained when it is first asked: a run that goes on after an
/// interruption trains none in vain.
pub(super) struct Victim<'d> {
    about: About,
    plans: Plans,
    train: &'d Dataset,
    deploy: Option<&'d dyn Deploy>,
    seed: u64,
    target: Option<Box<dyn Target>>,
}

impl<'d> Victim<'d> {
    pub(super) fn new(
        plans: Plans,
        dataset: &str,
        train: &'d Dataset,
        deployed: Option<(&'d dyn Deploy, Evaluation)>,
        seed: u64,
    ) -> Self {
        let evaluation = deployed.map_or(Evaluation::Clear, |(_, evaluation)| evaluation);
        let where_to = match evaluation {
            Evaluation::Clear => "",
            Evaluation::Encrypted => ", encrypted",
            Evaluation::EncryptedWeights => ", encrypted-weights",
        };
        Self {
            about: About {
                name: format!("{}{where_to}", plans.name),
                dataset: dataset.to_owned(),
                inputs: PIXELS,
                classes: CLASSES,
                activation: plans.activation,
                evaluation,
            },
            plans,
            train,
            deploy: deployed.map(|(deploy, _)| deploy),
            seed,
            target: None,
        }
    }

    /// The network with weights of 8 bits, and the samples that it was trained on.
    fn network(&self) -> Result<(Network<i16>, Rows), AttackError> {
        let image = Shape {
            channels: 1,
            height: SIDE as u16,
            width: SIDE as u16,
        };
        let count = self.train.images.len().min(MOST);
        let samples = Rows::images(&self.train.images[..count]);
        let network = Differentiable::untrained(image, self.plans.layers, self.seed)?;
        let training = Training {
            epochs: self.plans.epochs,
            seed: self.seed,
            ..Training::default()
        };
        let goal = Goal::Labels(&self.train.labels[..count]);
        train(&network, &samples, goal, &training, &mut ())?;
        Ok((network.to_network(self.plans.name)?.quantized(), samples))
    }

    fn made(&self) -> Result<Box<dyn Target>, AttackError> {
        let (network, samples) = self.network()?;
        if let Some(deploy) = self.deploy {
            let made = Made {
                name: self.plans.name,
                dataset: &self.about.dataset,
                network: &network,
                samples: &samples,
            };
            return Ok(deploy.deploy(made, self.about.evaluation)?);
        }
        let network = Differentiable::from_network(&network)?;
        let About { name, dataset, .. } = &self.about;
        let plain = Plain::new(name, dataset, self.plans.activation, network);
        Ok(Box::new(plain))
    }
}

impl Target for Victim<'_> {
    fn about(&self) -> &About {
        &self.about
    }

    fn grants(&self) -> Grants {
        use crate::target::Access;
        Plain::GRANTS.without(Grants::of(&[Access::Weights]))
    }

    fn observe(&mut self, queries: &Rows, asked: Grants) -> Result<Answers, TargetError> {
        if self.target.is_none() {
            let made = self.made().map_err(|source| TargetError::Failed {
                target: self.about.name.clone(),
                source: source.into(),
            })?;
            self.target = Some(made);
        }
        match &mut self.target {
            Some(target) => target.observe(queries, asked),
            None => Ok(Answers::default()),
        }
    }
}

/// MNIST's splits, for the long form of the tests: with HE_EDGE_LONG, and HE_EDGE_DATA
/// as `tests/run` sets it.
#[cfg(test)]
pub(super) fn mnist() -> Option<[Dataset; 2]> {
    use he_nn::data::{self, DataSet, Split};

    std::env::var_os("HE_EDGE_LONG")?;
    let root = std::env::var_os("HE_EDGE_DATA")?;
    let directory = DataSet::Mnist.locate(root.as_ref());
    Some([Split::Train, Split::Test].map(|split| data::load(&directory, split).unwrap()))
}
