/*!
Which shard this process is, from the variables that a scheduler sets for each of its jobs.
*/

use super::shard::{Deal, Shard};

/// Number of shards where the scheduler does not tell: Kubernetes.
pub const TOTAL: &str = "QUALM_SHARDS";

/// One scheduler's variables.
pub struct Scheduler {
    /// For people.
    pub name: &'static str,
    /// The variable with the job's number.
    pub index: &'static str,
    /// The number of the first job.
    pub first: First,
    /// The variable with the number of jobs.
    pub total: &'static str,
}

/// Where a scheduler begins to count, and in what steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// At this number, by one.
    At(u64),
    /// The user chooses: variables with the first number and with the step.
    Variables(&'static str, &'static str),
}

/// The schedulers that are known.
pub const SCHEDULERS: [Scheduler; 10] = [
    Scheduler {
        name: "a Slurm job array",
        index: "SLURM_ARRAY_TASK_ID",
        first: First::Variables("SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"),
        total: "SLURM_ARRAY_TASK_COUNT",
    },
    Scheduler {
        name: "a Kubernetes Indexed Job",
        index: "JOB_COMPLETION_INDEX",
        first: First::At(0),
        total: TOTAL,
    },
    Scheduler {
        name: "GitLab's parallel jobs",
        index: "CI_NODE_INDEX",
        first: First::At(1),
        total: "CI_NODE_TOTAL",
    },
    Scheduler {
        name: "CircleCI's parallelism",
        index: "CIRCLE_NODE_INDEX",
        first: First::At(0),
        total: "CIRCLE_NODE_TOTAL",
    },
    Scheduler {
        name: "Buildkite's parallelism",
        index: "BUILDKITE_PARALLEL_JOB",
        first: First::At(0),
        total: "BUILDKITE_PARALLEL_JOB_COUNT",
    },
    Scheduler {
        name: "Semaphore's parallelism",
        index: "SEMAPHORE_JOB_INDEX",
        first: First::At(1),
        total: "SEMAPHORE_JOB_COUNT",
    },
    Scheduler {
        name: "Bitbucket's parallel steps",
        index: "BITBUCKET_PARALLEL_STEP",
        first: First::At(0),
        total: "BITBUCKET_PARALLEL_STEP_COUNT",
    },
    Scheduler {
        name: "an AWS Batch array job",
        index: "AWS_BATCH_JOB_ARRAY_INDEX",
        first: First::At(0),
        total: "AWS_BATCH_JOB_ARRAY_SIZE",
    },
    Scheduler {
        name: "a Cloud Run job",
        index: "CLOUD_RUN_TASK_INDEX",
        first: First::At(0),
        total: "CLOUD_RUN_TASK_COUNT",
    },
    Scheduler {
        name: "Bazel's test sharding",
        index: "TEST_SHARD_INDEX",
        first: First::At(0),
        total: "TEST_TOTAL_SHARDS",
    },
];

/// The shard that the environment names; that none or several schedulers name one is an error, for
/// to guess would be to run the wrong tests.
pub fn shard(deal: Deal, get: &dyn Fn(&str) -> Option<String>) -> Result<Shard, String> {
    let found: Vec<&Scheduler> =
        SCHEDULERS.iter().filter(|scheduler| get(scheduler.index).is_some()).collect();
    match found.as_slice() {
        [scheduler] => scheduler.shard(deal, get),
        [] => {
            let names: Vec<&str> = SCHEDULERS.iter().map(|scheduler| scheduler.index).collect();
            Err(format!(
                "no scheduler names a shard: none of {} is set; name it with --partition",
                names.join(", ")
            ))
        }
        several => {
            let names: Vec<String> =
                several.iter().map(|it| format!("{} ({})", it.name, it.index)).collect();
            Err(format!(
                "several schedulers name a shard: {}; name it with --partition",
                names.join(" and ")
            ))
        }
    }
}

impl Scheduler {
    fn shard(&self, deal: Deal, get: &dyn Fn(&str) -> Option<String>) -> Result<Shard, String> {
        let number = |name: &str| -> Result<u64, String> {
            let value = get(name).ok_or_else(|| {
                format!("{}: {} is set, but {name} is not", self.name, self.index)
            })?;
            value
                .trim()
                .parse()
                .map_err(|_| format!("{}: {name} is {value:?}, which is no number", self.name))
        };
        let (index, total) = (number(self.index)?, number(self.total)?);
        let (first, step) = match self.first {
            First::At(first) => (first, 1),
            First::Variables(first, step) => (number(first)?, number(step)?),
        };
        let irregular = || {
            format!(
                "{}: {}={index} is not one of {total} jobs that count from {first} by {step}",
                self.name, self.index
            )
        };
        let steps = index.checked_sub(first).ok_or_else(irregular)?;
        if step == 0 || steps % step != 0 || steps / step >= total {
            return Err(irregular());
        }
        Shard::new(deal, steps / step + 1, total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(variables: &[(&str, &str)]) -> Result<Shard, String> {
        shard(Deal::Size, &|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn every_scheduler_by_its_own_count() {
        // The first and the last of the jobs, as each scheduler's documentation counts them.
        let slurm = |id| {
            vec![
                ("SLURM_ARRAY_TASK_ID", id),
                ("SLURM_ARRAY_TASK_MIN", "10"),
                ("SLURM_ARRAY_TASK_STEP", "2"),
                ("SLURM_ARRAY_TASK_COUNT", "3"),
            ]
        };
        for (variables, index, total) in [
            (slurm("10"), 1, 3),
            (slurm("14"), 3, 3),
            (vec![("JOB_COMPLETION_INDEX", "0"), ("QUALM_SHARDS", "4")], 1, 4),
            (vec![("JOB_COMPLETION_INDEX", "3"), ("QUALM_SHARDS", "4")], 4, 4),
            (vec![("CI_NODE_INDEX", "1"), ("CI_NODE_TOTAL", "2")], 1, 2),
            (vec![("CI_NODE_INDEX", "2"), ("CI_NODE_TOTAL", "2")], 2, 2),
            (vec![("CIRCLE_NODE_INDEX", "0"), ("CIRCLE_NODE_TOTAL", "2")], 1, 2),
            (vec![("CIRCLE_NODE_INDEX", "1"), ("CIRCLE_NODE_TOTAL", "2")], 2, 2),
            (vec![("BUILDKITE_PARALLEL_JOB", "0"), ("BUILDKITE_PARALLEL_JOB_COUNT", "5")], 1, 5),
            (vec![("BUILDKITE_PARALLEL_JOB", "4"), ("BUILDKITE_PARALLEL_JOB_COUNT", "5")], 5, 5),
            (vec![("SEMAPHORE_JOB_INDEX", "1"), ("SEMAPHORE_JOB_COUNT", "3")], 1, 3),
            (vec![("SEMAPHORE_JOB_INDEX", "3"), ("SEMAPHORE_JOB_COUNT", "3")], 3, 3),
            (vec![("BITBUCKET_PARALLEL_STEP", "0"), ("BITBUCKET_PARALLEL_STEP_COUNT", "2")], 1, 2),
            (vec![("AWS_BATCH_JOB_ARRAY_INDEX", "7"), ("AWS_BATCH_JOB_ARRAY_SIZE", "8")], 8, 8),
            (vec![("CLOUD_RUN_TASK_INDEX", "0"), ("CLOUD_RUN_TASK_COUNT", "1")], 1, 1),
            (vec![("TEST_SHARD_INDEX", "1"), ("TEST_TOTAL_SHARDS", "2")], 2, 2),
        ] {
            let expected = Shard { deal: Deal::Size, index, total };
            assert_eq!(find(&variables), Ok(expected), "{variables:?}");
        }
    }

    #[test]
    fn what_is_no_shard_is_an_error() {
        // variables, what the message says
        for (variables, expected) in [
            (&[][..], "no scheduler names a shard"),
            (&[("CI_NODE_TOTAL", "1")], "no scheduler"),
            (&[("JOB_COMPLETION_INDEX", "1")], "QUALM_SHARDS is not"),
            (
                &[("CI_NODE_INDEX", "1"), ("CI_NODE_TOTAL", "2"), ("TEST_SHARD_INDEX", "0")],
                "several schedulers",
            ),
            (&[("CI_NODE_INDEX", "0"), ("CI_NODE_TOTAL", "2")], "not one of 2 jobs"),
            (&[("CI_NODE_INDEX", "3"), ("CI_NODE_TOTAL", "2")], "not one of 2 jobs"),
            (&[("CIRCLE_NODE_INDEX", "2"), ("CIRCLE_NODE_TOTAL", "2")], "not one of 2 jobs"),
            (
                &[("CIRCLE_NODE_INDEX", "x"), ("CIRCLE_NODE_TOTAL", "2")],
                "\"x\", which is no number",
            ),
            (&[("CIRCLE_NODE_INDEX", ""), ("CIRCLE_NODE_TOTAL", "2")], "which is no number"),
            (
                &[
                    ("SLURM_ARRAY_TASK_ID", "7"),
                    ("SLURM_ARRAY_TASK_MIN", "1"),
                    ("SLURM_ARRAY_TASK_STEP", "1"),
                    ("SLURM_ARRAY_TASK_COUNT", "3"),
                ],
                "not one of 3 jobs",
            ),
            (&[("SLURM_ARRAY_TASK_ID", "7"), ("SLURM_ARRAY_TASK_COUNT", "3")], "_MIN is not"),
        ] {
            let error = find(variables).expect_err(expected);
            assert!(error.contains(expected), "{variables:?}: {error}");
        }
    }
}
