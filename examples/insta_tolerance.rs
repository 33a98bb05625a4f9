/*!
Numeric tolerance in one's own insta tests.

`cargo run --example insta_tolerance`
*/

use qualm::ToleranceComparator;

fn main() {
    // What another machine measured: the last digits differ from the snapshot's.
    let report = "layer 0   cosine 0.99987654   rmse 1.2000001e-3\n\
                  layer 1   cosine 0.99912345   rmse 4.5999999e-3";

    let mut settings = insta::Settings::clone_current();
    settings.set_comparator(Box::new(ToleranceComparator::new(1e-9, 1e-6)));
    settings.bind(|| {
        insta::assert_snapshot!(report, @"
        layer 0   cosine 0.99987655   rmse 1.2e-3
        layer 1   cosine 0.99912346   rmse 4.6e-3
        ");
    });
    println!("the snapshot holds within 1e-9 + 1e-6 of each number");
}
