//! `he-edge serve`: an evaluator behind TCP.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use he_core::Params;
use he_nn::plan::{Target, WeightMode};
use he_nn::program::Program;

use super::infer::seconds;
use super::output::say;
use super::{Failure, ModelFile, TermsArguments, parse_params};
use crate::evaluator::{self, Held, Limits, Visit};
use crate::interrupt;
use crate::planning;
use crate::report::text::bytes;

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Address to listen at.
    #[arg(long, default_value = "127.0.0.1:7700")]
    pub listen: String,
    /// A bundled model or a `.hemodel` file.
    #[arg(long, default_value = "mnist-mlp64")]
    pub model: String,
    /// Weights and sums, as its clients have them.
    #[command(flatten)]
    pub terms: TermsArguments,
    /// The parameter set, `n4096-depth3` or `n8192-depth5`; one that serves if left out.
    #[arg(long, value_parser = parse_params)]
    pub params: Option<&'static Params>,
    /// How many clients it serves at once; one more is told that it is busy.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub clients: u16,
    /// Longest silence of a client.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, default_value = "120", value_parser = seconds)]
    pub idle: Duration,
    /// Longest session of a client, which may connect again.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, default_value = "3600", value_parser = seconds)]
    pub session: Duration,
}

/// What is said where others can reach the evaluator.
const UNPROTECTED: &str = "this address can be reached from other machines, and the channel is neither \
authenticated nor encrypted: whoever reaches it can have the model evaluated, and whoever is on the \
way sees ciphertexts and the keys of the evaluator, which show no data, and can change or drop \
what is sent; use a tunnel, such as ssh -L, for anything but a trusted network (mutual TLS is not \
there yet)";

/// Serves clients, several at once, until it is interrupted.
///
/// # Errors
/// [`Failure`].
pub fn run(arguments: &ServeArguments) -> Result<(), Failure> {
    let file = ModelFile::open(&arguments.model)?;
    let model = file.parse()?;
    if arguments.terms.is_by_time() {
        return Err(Failure::Unplanned {
            what: "choice by time without a board",
            instead: "--inputs N, as its clients have it",
        });
    }
    let plan = planning::plan(arguments.params, model, arguments.terms, Target::STREAM);
    let plan = plan.map_err(|source| file.failed()(source.into()))?;
    let program = Program::of(&plan).map_err(|source| file.failed()(source.into()))?;
    let held = match arguments.terms.weights {
        WeightMode::Plain => Held::Plain(&program, model),
        WeightMode::Encrypted => Held::Encrypted(&program),
    };
    let limits = Limits {
        clients: arguments.clients.into(),
        idle: arguments.idle,
        session: arguments.session,
    };
    interrupt::watch().map_err(Failure::Signals)?;
    let listening = |address: SocketAddr| {
        if !address.ip().is_loopback() {
            say(format_args!("he-edge: {UNPROTECTED}"));
        }
        let each = bytes(evaluator::client_bytes(&program) as u64);
        say(format_args!(
            "for {} clients at once, {each} of memory each; evaluating {} at {address}",
            limits.clients,
            model.name()
        ));
    };
    evaluator::listen(&arguments.listen, held, limits, listening, |visit| {
        let Visit {
            client,
            inferences,
            received,
            sent,
            time,
            cpu,
            ended,
        } = visit;
        match ended {
            Err(error) if time.is_zero() => say(format_args!("he-edge: {error}")),
            ended => {
                let why = ended
                    .err()
                    .map_or_else(String::new, |error| format!("; {error}"));
                say(format_args!(
                    "{client}: {inferences} inferences, {} received, {} sent, {:.1} s, {:.1} s of them computing{why}",
                    bytes(received),
                    bytes(sent),
                    time.as_secs_f64(),
                    cpu.as_secs_f64()
                ));
            }
        }
    })?;
    say("interrupted: no client is left");
    Ok(())
}
