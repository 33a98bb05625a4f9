/*!
How a plane of scales spreads over a weight: per tensor, row, block or group, out of the two shapes.
*/

/// Elements of a weight as a stack of matrices, and the scales of each as a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Number of matrices.
    pub matrices: u64,
    /// Rows of elements of a matrix.
    pub rows: u64,
    /// Columns of elements of a matrix.
    pub cols: u64,
    /// Rows of scales over a matrix.
    pub grid_rows: u64,
    /// Columns of scales over a matrix.
    pub grid_cols: u64,
    /// Rows and columns of elements that share a scale.
    pub block: (u64, u64),
    /// One grid serves all matrices.
    pub shared: bool,
}

/// Product of extents; `None` beyond what a file can hold.
pub fn product(extents: &[u64]) -> Option<u64> {
    if extents.contains(&0) {
        return Some(0);
    }
    extents.iter().try_fold(1u64, |n, &extent| n.checked_mul(extent)).filter(|&n| n < 1 << 56)
}

/// Finds out how scales of shape `scales` spread over a weight of shape `weight`, both outermost
/// dimension first.
///
/// `configured` is the block size that the configuration names. Where the grid fits several block
/// sizes, the first that fits is taken: the configured one, 128 (the size that everybody ships),
/// 32 and other powers of two, an even division.
pub fn spread(
    weight: &[u64],
    scales: &[u64],
    configured: Option<(u64, u64)>,
) -> Result<Spread, String> {
    let misfit =
        || format!("has shape {scales:?}, which does not fit a weight of shape {weight:?}");
    let size = |extents: &[u64]| product(extents).ok_or_else(misfit);
    let (&cols, outer) = weight.split_last().unwrap_or((&1, &[]));
    if scales.contains(&0) && !weight.contains(&0) {
        return Err(misfit());
    }
    if size(scales)? == 1 {
        let whole = Spread {
            matrices: 1,
            rows: size(outer)?,
            cols,
            grid_rows: 1,
            grid_cols: 1,
            block: (u64::MAX, u64::MAX),
            shared: true,
        };
        return Ok(whole);
    }
    // One scale for each index of the leading dimensions, whatever follows: [out], [out, 1],
    // [out, 1, 1, 1] for a convolution, [experts, out] for a stack.
    let ones = scales.iter().rev().take_while(|&&extent| extent == 1).count();
    let leading = &scales[..scales.len() - ones];
    if weight.len() >= leading.len() && weight[..leading.len()] == *leading {
        let rows = size(leading)?;
        return Ok(Spread {
            matrices: 1,
            rows,
            cols: size(&weight[leading.len()..])?,
            grid_rows: rows,
            grid_cols: 1,
            block: (1, u64::MAX),
            shared: false,
        });
    }
    // ModelOpt keeps a block's own dimensions: [rows of blocks, 1, columns of blocks, 1].
    let squeezed: Vec<u64>;
    let scales = match *scales {
        [a, 1, b, 1] if weight.len() == 2 => {
            squeezed = vec![a, b];
            &squeezed[..]
        }
        _ => scales,
    };
    if scales.len() != weight.len() || weight.len() < 2 {
        return Err(misfit());
    }
    let last = weight.len() - 2;
    let (rows, [grid_rows, grid_cols]) = (weight[last], [scales[last], scales[last + 1]]);
    let stack = &weight[..last];
    let shared = scales[..last].iter().all(|&extent| extent == 1);
    if !shared && scales[..last] != *stack {
        return Err(misfit());
    }
    if let Some((by_rows, by_cols)) = configured.filter(|&(rows, cols)| rows > 0 && cols > 0)
        && (rows.div_ceil(by_rows), cols.div_ceil(by_cols)) != (grid_rows, grid_cols)
    {
        let misfit = misfit();
        return Err(format!("{misfit} in the configured blocks of {by_rows}x{by_cols}"));
    }
    let (by_rows, by_cols) = configured.unzip();
    let block = (block(rows, grid_rows, by_rows), block(cols, grid_cols, by_cols));
    let (Some(block_rows), Some(block_cols)) = block else { return Err(misfit()) };
    Ok(Spread {
        matrices: size(stack)?,
        rows,
        cols,
        grid_rows,
        grid_cols,
        block: (block_rows, block_cols),
        shared: shared && !stack.is_empty(),
    })
}

/// Elements of a block, if `cells` blocks cover `len` elements and only the last may be short.
pub fn block(len: u64, cells: u64, configured: Option<u64>) -> Option<u64> {
    let fits = |size: &u64| *size > 0 && len.div_ceil(*size) == cells;
    if cells == 0 || cells > len {
        return None;
    }
    if cells == 1 {
        return Some(u64::MAX);
    }
    let likely = [128, 32, 64, 16, 256, 512, 1024, 8, 4, 2, 1, 2048, 4096, 8192];
    let even = len.is_multiple_of(cells).then(|| len / cells);
    configured.filter(fits).or_else(|| likely.into_iter().find(fits)).or(even)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_by_their_number() {
        for (len, cells, configured, expected, why) in [
            (192, 2, None, Some(128), "128 with a short last block before an even 96"),
            (192, 6, None, Some(32), "only 32 fits"),
            (130, 2, Some(65), Some(65), "the configuration settles it"),
            (130, 2, Some(64), Some(128), "a configuration for other modules does not fit"),
            (100, 4, None, Some(32), "a short last block of 32 before an even 25"),
            (120, 3, None, Some(40), "no power of two fits"),
            (7, 1, None, Some(u64::MAX), "one block"),
            (7, 8, None, None, "more cells than elements"),
            (7, 0, None, None, "no cells"),
            (7, 5, None, None, "no size gives five blocks of seven elements"),
        ] {
            assert_eq!(block(len, cells, configured), expected, "{why}");
        }
    }

    #[test]
    fn scales_by_their_shape() {
        let max = u64::MAX;
        for (weight, scales, dims, grid, block, shared, why) in [
            (&[6, 8][..], &[][..], (1, 6, 8), (1, 1), (max, max), true, "rank 0"),
            (&[6, 8], &[1], (1, 6, 8), (1, 1), (max, max), true, "one value"),
            (&[6, 8], &[6], (1, 6, 8), (6, 1), (1, max), false, "one a row, flat"),
            (&[6, 8], &[6, 1], (1, 6, 8), (6, 1), (1, max), false, "one a row"),
            (&[6, 8], &[1, 8], (1, 6, 8), (1, 8), (max, 1), false, "one a column"),
            (&[256, 256], &[2, 2], (1, 256, 256), (2, 2), (128, 128), false, "blocks"),
            (&[256, 256], &[2, 1, 2, 1], (1, 256, 256), (2, 2), (128, 128), false, "4-D blocks"),
            (&[4, 6, 3, 3], &[4, 1, 1, 1], (1, 4, 54), (4, 1), (1, max), false, "convolution"),
            (&[2, 6, 8], &[2], (1, 2, 48), (2, 1), (1, max), false, "one an expert"),
            (&[2, 6, 8], &[2, 6], (1, 12, 8), (12, 1), (1, max), false, "one an expert's row"),
            (&[2, 6, 64], &[2, 6, 2], (2, 6, 64), (6, 2), (1, 32), false, "groups of experts"),
            (&[2, 6, 8], &[2, 1, 8], (2, 6, 8), (1, 8), (max, 1), false, "columns of experts"),
        ] {
            let expected = Spread {
                matrices: dims.0,
                rows: dims.1,
                cols: dims.2,
                grid_rows: grid.0,
                grid_cols: grid.1,
                block,
                shared,
            };
            assert_eq!(spread(weight, scales, None), Ok(expected), "{why}");
        }
        for (weight, scales) in
            [(&[6, 8][..], &[5][..]), (&[6, 8], &[7, 1]), (&[6, 8], &[0]), (&[8], &[2, 2])]
        {
            assert!(spread(weight, scales, None).is_err(), "{weight:?} {scales:?}");
        }
        let configured = Some((128, 128));
        for (weight, scales, fits, why) in [
            (&[132, 130][..], &[2, 2][..], true, "the last blocks are short"),
            (&[132, 130], &[5, 5], false, "blocks of 32 are not what the configuration says"),
            (&[132, 130], &[1, 2], false, "a row of blocks is not there"),
            (&[132, 130], &[132, 1], true, "one a row, in a model of blocks"),
        ] {
            assert_eq!(spread(weight, scales, configured).is_ok(), fits, "{why}");
        }
    }
}
