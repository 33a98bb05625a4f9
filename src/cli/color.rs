/*!
When to colour: what the user says, then the environment, then whether a terminal is there.
*/

use std::io::IsTerminal;

use super::run_args::Color;

/// Should text on standard output be coloured?
pub fn on_stdout(flag: Color) -> bool {
    decide(flag, std::io::stdout().is_terminal(), &|name| std::env::var(name).ok())
}

/// Should text on standard error be coloured?
pub fn on_stderr(flag: Color) -> bool {
    decide(flag, std::io::stderr().is_terminal(), &|name| std::env::var(name).ok())
}

/// The rules: `--color`, then `NO_COLOR`, `CARGO_TERM_COLOR=never`, `CLICOLOR_FORCE`,
/// `CARGO_TERM_COLOR=always`, `CLICOLOR=0` and `TERM=dumb`, then the terminal.
fn decide(flag: Color, terminal: bool, env: &dyn Fn(&str) -> Option<String>) -> bool {
    let set = |name: &str| env(name).is_some_and(|value| !value.is_empty());
    let says = |name: &str, value: &str| env(name).is_some_and(|it| it == value);
    match flag {
        Color::Always => true,
        Color::Never => false,
        Color::Auto if set("NO_COLOR") || says("CARGO_TERM_COLOR", "never") => false,
        Color::Auto if set("CLICOLOR_FORCE") && !says("CLICOLOR_FORCE", "0") => true,
        Color::Auto if says("CARGO_TERM_COLOR", "always") => true,
        Color::Auto => terminal && !says("CLICOLOR", "0") && !says("TERM", "dumb"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_then_the_environment_then_the_terminal() {
        use Color::{Always, Auto, Never};
        for (flag, terminal, env, expected, why) in [
            (Auto, true, &[][..], true, "a terminal"),
            (Auto, false, &[], false, "a pipe"),
            (Auto, true, &[("NO_COLOR", "1")], false, "NO_COLOR"),
            (Auto, true, &[("NO_COLOR", "")], true, "an empty NO_COLOR is none"),
            (Auto, false, &[("CLICOLOR_FORCE", "1")], true, "CLICOLOR_FORCE"),
            (Auto, false, &[("CLICOLOR_FORCE", "0")], false, "which 0 is not"),
            (Auto, true, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], false, "NO_COLOR wins"),
            (Auto, false, &[("CARGO_TERM_COLOR", "always")], true, "cargo's"),
            (Auto, true, &[("CARGO_TERM_COLOR", "never")], false, "cargo's"),
            (Auto, true, &[("CLICOLOR", "0")], false, "CLICOLOR"),
            (Auto, true, &[("TERM", "dumb")], false, "a terminal without colour"),
            (Always, false, &[("NO_COLOR", "1")], true, "the flag beats the environment"),
            (Never, true, &[("CLICOLOR_FORCE", "1")], false, "the flag beats the environment"),
        ] {
            let lookup = |name: &str| {
                let found = env.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(decide(flag, terminal, &lookup), expected, "{why}");
        }
    }
}
