/*!
One search for all types whose values are a small scale times an entry of a book: given a run of values
under one large scale (a super-block, or a row), find that scale, the small scale of each group, the form
of its book, and the codes.

The library has a search of its own for each type; this one is not theirs, bit for bit, but what it finds
has the same SQNR within 0.5 dB (`tests/ik_encode.rs` holds it against the library's on real weights). As
there, the error of a value counts by its square, and by a quarter of the run's mean square more.

1. Each group tries scales in a range around the one that maps its extreme value to the end of the book,
   both signs and both forms; each trial is corrected by weighted least squares.
2. The large scale maps the extreme of these to the end of the small scales' levels.
3. Each group takes the level and form of least error among the nearest few, and its codes.
4. The large scale is corrected by weighted least squares, the codes are taken once more, and so is the
   scale.
*/

/// Entries of `DIM` values each, in one or two forms.
pub(super) trait Book<const DIM: usize> {
    /// How many forms there are.
    const FORMS: usize;
    /// The code of the entry nearest to `y` under the weights.
    fn nearest(&self, form: usize, y: &[f32; DIM], weights: &[f32; DIM]) -> u32;
    /// The values of an entry.
    fn entry(&self, form: usize, code: u32) -> [f32; DIM];
    /// A scale that suits a group, signed, before small and large scales are told apart.
    fn first_scale(&self, x: &[f32], weights: &[f32]) -> f32;
}

/// A group of values under one small scale.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// Index of its level among the levels.
    pub level: usize,
    /// Which form of the book.
    pub form: usize,
    /// Codes, one for each entry.
    pub codes: Vec<u32>,
}

/// What was found for a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    /// The large scale.
    pub scale: f32,
    /// The groups.
    pub groups: Vec<Group>,
}

/// What is fixed about a type.
pub(super) struct Fit<'a, B> {
    /// Its book.
    pub book: B,
    /// Values that share a small scale.
    pub group: usize,
    /// What a small scale may be, ascending.
    pub levels: &'a [f32],
    /// How many levels on either side of the nearest a group tries.
    pub around: usize,
    /// How the large scale is stored.
    pub store: fn(f32) -> f32,
}

/// How much each value's error counts.
pub(super) fn importance(x: &[f32], column_weights: Option<&[f32]>) -> Vec<f32> {
    let mean = x.iter().map(|x| x * x).sum::<f32>() / x.len().max(1) as f32;
    match column_weights {
        None => x.iter().map(|x| 0.5 * mean + x * x).collect(),
        Some(columns) => {
            x.iter().zip(columns).map(|(x, column)| column * (mean + x * x).sqrt()).collect()
        }
    }
}

impl<B> Fit<'_, B> {
    /// Finds a run's scale, levels and codes.
    pub fn run<const DIM: usize>(&self, x: &[f32], weights: &[f32]) -> Run
    where
        B: Book<DIM>,
    {
        let groups = || x.chunks_exact(self.group).zip(weights.chunks_exact(self.group));
        let wanted: Vec<f32> =
            groups().map(|(x, weights)| self.book.first_scale(x, weights)).collect();
        let extreme = wanted.iter().fold(0.0f32, |e, &s| if s.abs() > e.abs() { s } else { e });
        let top = self.levels.iter().fold(0.0f32, |e, &l| if l.abs() > e.abs() { l } else { e });
        let scale = (self.store)(extreme / top);
        if scale == 0.0 || !scale.is_finite() {
            let zero = self.nearest_level(0.0);
            let group = Group { level: zero, form: 0, codes: vec![0; self.group / DIM] };
            return Run { scale: 0.0, groups: vec![group; wanted.len()] };
        }
        let found = groups()
            .zip(&wanted)
            .map(|((x, weights), &wanted)| self.group_at(scale, wanted, x, weights));
        let mut found: Vec<Group> = found.collect();
        let better = self.better_scale(groups().zip(&found));
        if better == 0.0 || !better.is_finite() {
            return Run { scale, groups: found };
        }
        for ((x, weights), group) in groups().zip(&mut found) {
            let scale = better * self.levels[group.level];
            group.codes = self.codes(scale, group.form, x, weights).1;
        }
        let best = self.better_scale(groups().zip(&found));
        let scale = if best == 0.0 || !best.is_finite() { better } else { best };
        Run { scale, groups: found }
    }

    /// The large scale of least error for what was found.
    fn better_scale<'g, const DIM: usize>(
        &self,
        found: impl Iterator<Item = ((&'g [f32], &'g [f32]), &'g Group)>,
    ) -> f32
    where
        B: Book<DIM>,
    {
        let (mut above, mut below) = (0.0, 0.0);
        for ((x, weights), group) in found {
            let (a, b) = self.sums(x, weights, group);
            above += a * self.levels[group.level];
            below += b * self.levels[group.level] * self.levels[group.level];
        }
        (self.store)(above / below)
    }

    /// The level nearest to a number.
    fn nearest_level(&self, number: f32) -> usize {
        let above = self.levels.partition_point(|&level| level < number);
        let below = above.saturating_sub(1);
        let above = above.min(self.levels.len() - 1);
        let closer = (self.levels[above] - number).abs() < (number - self.levels[below]).abs();
        if closer { above } else { below }
    }

    /// Level, form and codes of least error near the wanted scale.
    fn group_at<const DIM: usize>(
        &self,
        scale: f32,
        wanted: f32,
        x: &[f32],
        weights: &[f32],
    ) -> Group
    where
        B: Book<DIM>,
    {
        let nearest = self.nearest_level(wanted / scale);
        let last = self.levels.len() - 1;
        let levels = nearest.saturating_sub(self.around)..=(nearest + self.around).min(last);
        let mut best = (f32::INFINITY, Group::default());
        for level in levels {
            for form in 0..B::FORMS {
                let (error, codes) = self.codes(scale * self.levels[level], form, x, weights);
                if error < best.0 {
                    best = (error, Group { level, form, codes });
                }
            }
        }
        if best.1.codes.is_empty() {
            // Values that are not finite have no error to compare.
            best.1 = Group { level: nearest, form: 0, codes: vec![0; self.group / DIM] };
        }
        best.1
    }

    /// The codes under a scale, and their weighted error.
    fn codes<const DIM: usize>(
        &self,
        scale: f32,
        form: usize,
        x: &[f32],
        weights: &[f32],
    ) -> (f32, Vec<u32>)
    where
        B: Book<DIM>,
    {
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let (mut error, mut codes) = (0.0, Vec::with_capacity(self.group / DIM));
        for (x, weights) in x.as_chunks::<DIM>().0.iter().zip(weights.as_chunks::<DIM>().0) {
            let code = self.book.nearest(form, &x.map(|x| x * inverse), weights);
            for ((x, w), v) in x.iter().zip(weights).zip(self.book.entry(form, code)) {
                let difference = x - scale * v;
                error += w * difference * difference;
            }
            codes.push(code);
        }
        (error, codes)
    }

    /// Σ w x v and Σ w v² of a group's entries.
    fn sums<const DIM: usize>(&self, x: &[f32], weights: &[f32], group: &Group) -> (f32, f32)
    where
        B: Book<DIM>,
    {
        let (mut above, mut below) = (0.0, 0.0);
        let entries = x.as_chunks::<DIM>().0.iter().zip(weights.as_chunks::<DIM>().0);
        for ((x, weights), &code) in entries.zip(&group.codes) {
            for ((x, w), v) in x.iter().zip(weights).zip(self.book.entry(group.form, code)) {
                above += w * x * v;
                below += w * v * v;
            }
        }
        (above, below)
    }
}

/// Of the scales near that with which a group has the deviation of the book's values, the one that leaves
/// least of the group.
pub(super) fn by_deviation<const DIM: usize>(
    book: &impl Book<DIM>,
    deviation: f32,
    ratios: &[f32],
    x: &[f32],
    weights: &[f32],
) -> f32 {
    let square = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
    let scale = square.sqrt() / deviation;
    let mut best = (0.0, 0.0);
    if scale == 0.0 {
        return 0.0;
    }
    for ratio in ratios {
        let inverse = 1.0 / (scale * ratio);
        let (mut above, mut below) = (0.0, 0.0);
        for (x, weights) in x.as_chunks::<DIM>().0.iter().zip(weights.as_chunks::<DIM>().0) {
            let code = book.nearest(0, &x.map(|x| x * inverse), weights);
            for ((x, w), v) in x.iter().zip(weights).zip(book.entry(0, code)) {
                above += w * x * v;
                below += w * v * v;
            }
        }
        if below > 0.0 && above * above > best.1 * below {
            best = (above / below, above * above / below);
        }
    }
    best.0
}

/// A book of single values, ascending, in one or two forms.
pub(super) struct Values {
    forms: [Vec<f32>; 2],
    /// The range of scales to try, relative to that which maps the extreme value to the book's end.
    tries: [f32; 2],
}

impl Values {
    /// A book whose second form is a constant higher.
    pub fn new(values: impl Iterator<Item = f32> + Clone, shift: f32, tries: [f32; 2]) -> Self {
        let shifted = values.clone().map(|value| value + shift).collect();
        Self { forms: [values.collect(), shifted], tries }
    }

    /// The best of the scales in the book's range.
    fn search(&self, x: &[f32], weights: &[f32]) -> f32 {
        const TRIES: usize = 12;
        let extreme = x.iter().fold(0.0f32, |e, &x| if x.abs() > e.abs() { x } else { e });
        let mut best = (0.0, 0.0);
        if extreme == 0.0 {
            return 0.0;
        }
        let [low, high] = self.tries;
        for (form, values) in self.forms.iter().enumerate() {
            for end in [values[0], values[values.len() - 1]] {
                for step in 0..TRIES {
                    let ratio = low + (high - low) * step as f32 / (TRIES - 1) as f32;
                    let inverse = end * ratio / extreme;
                    let (mut above, mut below) = (0.0, 0.0);
                    for (&x, &w) in x.iter().zip(weights) {
                        let v = values[self.nearest(form, &[x * inverse], &[w]) as usize];
                        above += w * x * v;
                        below += w * v * v;
                    }
                    if below > 0.0 && above * above > best.1 * below {
                        best = (above / below, above * above / below);
                    }
                }
            }
        }
        best.0
    }
}

impl Book<1> for Values {
    const FORMS: usize = 2;

    fn nearest(&self, form: usize, y: &[f32; 1], _weights: &[f32; 1]) -> u32 {
        let values = &self.forms[form];
        let above = values.partition_point(|&value| value < y[0]);
        let below = above.saturating_sub(1);
        let above = above.min(values.len() - 1);
        u32::from(values[above] - y[0] < y[0] - values[below]) * (above - below) as u32
            + below as u32
    }

    fn entry(&self, form: usize, code: u32) -> [f32; 1] {
        [self.forms[form][code as usize]]
    }

    fn first_scale(&self, x: &[f32], weights: &[f32]) -> f32 {
        self.search(x, weights)
    }
}
