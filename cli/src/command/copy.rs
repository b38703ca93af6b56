//! `ucp SOURCE… TARGET`, also written `ucp copy SOURCE… TARGET`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use ucp_engine::copy::{self, Cancellation, Progress, Request, TargetRole};
use ucp_engine::processor::Configuration;

use crate::args::{self, CopyArguments, Environment, Operands, Told};
use crate::exit::ExitStatus;
use crate::gnu::{self, Persona};
use crate::progress::{Display, State};
use crate::report::{Listing, Report, Verbosity, complain_about_usage, warn};
use crate::sandbox::Sandbox;
use crate::signal::Signals;

/// Copies what the user asked for, tells of it, and says how it ended.
pub(crate) fn run(arguments: &CopyArguments, umask: u32, signals: Signals) -> ExitStatus {
    let request = match request(arguments, umask) {
        Ok(request) => request,
        Err(complaint) => {
            complain_about_usage(arguments.persona, &complaint);
            return ExitStatus::of_usage(arguments.persona);
        }
    };
    // Now, while there is one thread only.
    if arguments.safety.sandbox
        && let Err(complaint) = Sandbox::around(&request).enter()
    {
        complain_about_usage(arguments.persona, &complaint);
        return ExitStatus::SomeFailed;
    }
    let (verbosity, listing, display) = told(arguments.persona, &arguments.told);
    let report = Report::new(arguments.persona, verbosity, listing, display.clone());
    let progress = Progress::default();
    let cancellation = Arc::new(Cancellation::default());
    let state = State::of(&progress, &display);
    let signal = signals.watch(Arc::clone(&cancellation), move || state.tell());

    let copied =
        display.during(&progress, || copy::copy(&request, &report, &progress, &cancellation));
    let status = match copied {
        Ok(summary) => {
            report.finish(&summary, signal.get());
            ExitStatus::of_copy(&summary, signal.get(), report.is_output_complete())
        }
        Err(error) => {
            report.abandon(&error, signal.get());
            match report.is_output_complete() {
                true => ExitStatus::of_failure(error.kind(), signal.get()),
                false => ExitStatus::SomeFailed,
            }
        }
    };
    status.for_persona(arguments.persona)
}

fn request(arguments: &CopyArguments, umask: u32) -> Result<Request, String> {
    let (mut sources, target, also, target_role) = match arguments.operands()? {
        Operands::Guess(sources, target) => (sources, target, Vec::new(), TargetRole::Guess),
        Operands::Into(sources, target, also) => (sources, target, also, TargetRole::Directory),
        Operands::Named(source, target) => (vec![source], target, Vec::new(), TargetRole::Name),
    };
    arguments.selection.check(sources.len())?;
    if arguments.existing.strip_trailing_slashes {
        sources.iter_mut().for_each(strip_slashes);
    }
    let options = options(arguments, umask)?;
    let engine = arguments.speed.engine();
    let engine = Configuration { engine, ..Configuration::default() };
    let request = Request { sources, target, also, target_role, options, engine };
    match request.contradiction() {
        Some(reason) => Err(format!("options contradict each other: {reason}")),
        None => Ok(request),
    }
}

/// Takes slashes off the end of a path, but for the one that is all of it.
fn strip_slashes(path: &mut PathBuf) {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|byte| *byte != b'/').map_or(1, |last| last + 1);
    if end < bytes.len() {
        *path = PathBuf::from(OsStr::from_bytes(&bytes[..end]));
    }
}

fn options(arguments: &CopyArguments, umask: u32) -> Result<copy::Options, String> {
    let mut options = copy::Options { umask, ..copy::Options::default() };
    arguments.what.apply(&mut options);
    if arguments.persona == Persona::Cp {
        gnu::apply_defaults(arguments, &mut options);
    }
    arguments.existing.apply(&mut options, &Environment::read())?;
    arguments.selection.apply(&mut options)?;
    let is_called_as_cp = arguments.persona == Persona::Cp;
    let warning =
        arguments.attributes.apply(&mut options, arguments.links_word, is_called_as_cp)?;
    if let Some(warning) = warning {
        warn(arguments.persona, warning);
    }
    arguments.safety.apply(&mut options);
    arguments.data.apply(&mut options);
    arguments.verification.apply(&mut options);
    arguments.speed.apply(&mut options);
    if arguments.persona == Persona::Cp {
        gnu::apply_promises(&mut options);
    }
    Ok(options)
}

fn told(persona: Persona, told: &Told) -> (Verbosity, Listing, Display) {
    let verbosity = match (told.quiet, told.verbose || told.debug) {
        (true, _) => Verbosity::Quiet,
        (false, true) => Verbosity::Verbose,
        (false, false) => Verbosity::Normal,
    };
    let names = if told.debug { Listing::Debug } else { Listing::Names };
    let listing = match (told.json, told.explain, verbosity) {
        (true, _, _) => Listing::Json,
        (false, true, _) => Listing::Explained,
        (false, false, Verbosity::Verbose) => names,
        (false, false, _) => Listing::None,
    };
    let progress = match (told.progress, verbosity) {
        // Under -v every file is a line already.
        (args::When::Auto, Verbosity::Quiet | Verbosity::Verbose) => args::When::Never,
        // GNU cp shows none.
        (args::When::Auto, _) if persona == Persona::Cp => args::When::Never,
        (asked, _) => asked,
    };
    (verbosity, listing, Display::new(progress))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use ucp_engine::processor::EngineChoice;

    use super::*;

    fn asked(words: &[&str]) -> Request {
        let arguments =
            CopyArguments::try_parse_from([&["ucp", "a", "b"], words].concat()).unwrap();
        request(&arguments, 0o027).unwrap()
    }

    #[test]
    fn links_are_followed_as_cp_follows_them() {
        use copy::FollowLinks::{Always, Never, Operands};

        let cases: [(&[&str], _); 10] = [
            (&[], Operands),
            (&["-r"], Never),
            (&["-R"], Never),
            (&["-P"], Never),
            (&["-H"], Operands),
            (&["-L"], Always),
            (&["-rH"], Operands),
            (&["-rL"], Always),
            (&["-LP"], Never),
            (&["-PrH"], Operands),
        ];
        for (words, want) in cases {
            assert_eq!(asked(words).options.links, want, "{words:?}");
        }
    }

    #[test]
    fn nothing_typed_asks_for_the_engine_s_defaults() {
        let request = asked(&[]);
        let want = copy::Options { umask: 0o027, ..copy::Options::default() };
        assert_eq!(format!("{:?}", request.options), format!("{want:?}"));
        assert_eq!(request.target_role, TargetRole::Guess);
        assert_eq!(request.engine.engine, EngineChoice::Auto);
    }

    #[test]
    fn each_option_reaches_the_engine() {
        let words = [
            "-T",
            "--direct=on",
            "--reflink=never",
            "--sparse=always",
            "--pipeline=linked",
            "--durable",
            "--in-place",
            "--stage=never",
            "--engine=threads",
            "--depth=3",
            "--block-size=64K",
        ];
        let Request { options, target_role, engine, .. } = asked(&words);
        assert_eq!(target_role, TargetRole::Name);
        assert_eq!(engine.engine, EngineChoice::Threads);
        assert_eq!(options.direct, copy::Direct::On);
        assert_eq!(options.reflink, copy::Reflink::Never);
        assert_eq!(options.holes, copy::Holes::Always);
        assert_eq!(options.pipeline, copy::PipelineMode::Linked);
        assert_eq!(options.durability, copy::Durability::Full);
        assert_eq!(options.stage, copy::Stage::Never);
        assert!(options.in_place);
        assert_eq!((options.depth, options.block_bytes), (3, 64 << 10));
    }
}
