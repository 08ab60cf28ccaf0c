//! Argument parser whose errors do not repeat the value: a URL may contain a password, an operator
//! may type `phones:password` as a name, and cron sends errors by mail.

use std::ffi::OsStr;
use std::fmt::Display;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};

/// Value parser that calls a function and reports its error without the value.
#[derive(Clone)]
pub(super) struct RedactedErrors<F>(pub(super) F);

impl<F, T, E> TypedValueParser for RedactedErrors<F>
where
    F: Fn(&str) -> Result<T, E> + Clone + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
    E: Display,
{
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, Error> {
        let problem = match value.to_str().map(&self.0) {
            Some(Ok(parsed)) => return Ok(parsed),
            Some(Err(error)) => error.to_string(),
            None => "is not UTF-8".to_owned(),
        };
        let name = argument.map(ToString::to_string).unwrap_or_default();
        let text = format!("invalid value for '{name}': {problem}\n");
        Err(Error::raw(ErrorKind::ValueValidation, text).with_cmd(command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_about_an_invalid_value_does_not_repeat_it() {
        let parse = |text: &str| text.parse::<u8>();
        let argument = Arg::new("number")
            .long("number")
            .value_parser(RedactedErrors(parse));
        let command = Command::new("program").arg(argument);
        let given = |value| {
            let command = command.clone();
            command.try_get_matches_from(["program", "--number", value])
        };

        assert_eq!(given("7").unwrap().get_one::<u8>("number"), Some(&7));
        let error = given("hunter2").unwrap_err().to_string();
        let expected =
            "error: invalid value for '--number <number>': invalid digit found in string\n";
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
