/*! `qualm schema | completions | man`: what is generated from the program's own tables. */

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;

use super::args::{Cli, CompletionsArgs, ManArgs, SchemaArgs, SchemaKind, Shell};
use super::{Failure, streams};
use crate::suite::exit::Exit;

/// Prints a JSON schema.
pub fn schema(args: &SchemaArgs) -> Result<Exit, Failure> {
    let text = match args.kind {
        SchemaKind::Spec => crate::spec::SCHEMA.to_owned(),
        SchemaKind::Contract => crate::report::contract_json::schema(),
    };
    streams::raw_out().write_all(text.as_bytes())?;
    Ok(Exit::Ok)
}

/// Prints a completion script.
pub fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let script = match args.shell {
        Shell::Bash => script(clap_complete::Shell::Bash),
        Shell::Elvish => script(clap_complete::Shell::Elvish),
        Shell::Fish => script(clap_complete::Shell::Fish),
        Shell::Nushell => script(clap_complete_nushell::Nushell),
        Shell::Pwsh => script(clap_complete::Shell::PowerShell),
        Shell::Zsh => script(clap_complete::Shell::Zsh),
    };
    streams::raw_out().write_all(&script)?;
    Ok(Exit::Ok)
}

fn script(generator: impl clap_complete::Generator) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(generator, &mut Cli::command(), "qualm", &mut script);
    script
}

/// Prints the manual page, or writes one page a command into a directory.
pub fn man(args: &ManArgs) -> Result<Exit, Failure> {
    let command = Cli::command();
    match &args.dir {
        None => clap_mangen::Man::new(command).render(&mut streams::raw_out())?,
        Some(dir) => write_pages(dir, command).map_err(|error| {
            let problem = format!("cannot write manual pages to {}: {error}", dir.display());
            Failure::new(Exit::Internal, problem)
        })?,
    }
    Ok(Exit::Ok)
}

fn write_pages(dir: &Path, command: clap::Command) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(command, dir)
}
