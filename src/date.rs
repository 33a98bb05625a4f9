/*!
Calendar days: the last day of a waiver, today, and when a signature is made. All days are UTC.
*/

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// A day of the proleptic Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    /// Year, four digits.
    pub year: u16,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, from 1.
    pub day: u8,
}

impl Date {
    /// The current day, in UTC.
    pub fn today() -> Self {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_days(elapsed.as_secs() / 86_400)
    }

    /// The day that is so many days after 1970-01-01.
    pub fn from_days(days: u64) -> Self {
        // Days since 0000-03-01, so that a leap day is the last of its year; a cycle of 400 years
        // has 146097 days. Beyond the year 65535 the date saturates.
        let days = days.min(23_000_000) + 719_468;
        let (cycle, day_of_cycle) = (days / 146_097, days % 146_097);
        let year_of_cycle = (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524
            - day_of_cycle / 146_096)
            / 365;
        let day_of_year =
            day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = cycle * 400 + year_of_cycle + u64::from(month <= 2);
        Self { year: u16::try_from(year).unwrap_or(u16::MAX), month: month as u8, day: day as u8 }
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl FromStr for Date {
    type Err = String;

    /// Reads what [`Date`]'s `Display` writes.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, '-').map(|part| {
            let digits = part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse::<u16>().ok().filter(|_| digits)
        });
        match [parts.next(), parts.next(), parts.next()].map(Option::flatten) {
            [Some(year), Some(month @ 1..=12), Some(day @ 1..=31)] => {
                Ok(Self { year, month: month as u8, day: day as u8 })
            }
            _ => Err(format!("{text:?} is no date such as 2027-01-31")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        // Expected values: date -u -d @$((days * 86400)) +%F
        for (days, expected) in [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (789, "1972-02-29"),
            (11_016, "2000-02-29"),
            (20_819, "2027-01-01"),
            (20_849, "2027-01-31"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(Date::from_days(days).to_string(), expected);
        }
    }

    #[test]
    fn dates_are_read_back() {
        for days in [0, 58, 20_000, 100_000] {
            let date = Date::from_days(days);
            assert_eq!(date.to_string().parse(), Ok(date));
        }
        for bad in
            ["", "2026", "2026-01", "2026-13-01", "2026-00-01", "2026-01-32", "+1-1-1", "a-b-c"]
        {
            assert!(bad.parse::<Date>().is_err(), "{bad}");
        }
    }
}
