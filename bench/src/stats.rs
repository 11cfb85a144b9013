//! What many runs say together.

/// The middle value: of an even number of values, the mean of the two in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.len(), values.get(middle), values.get(middle.wrapping_sub(1))) {
        (0, ..) => f64::NAN,
        (count, Some(high), Some(low)) if count % 2 == 0 => (low + high) / 2.0,
        (_, Some(value), _) => *value,
        (_, None, _) => f64::NAN,
    }
}
