//! Bodies of functions, and all their mutants beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};

use crate::mutant::{Mutant, Place, Span};

/// A source file with mutants in it.
pub struct Changed {
    pub text: String,
    /// The lines of each mutant.
    pub arms: Vec<(RangeInclusive<usize>, usize)>,
    /// The lines of each function that has some, and which.
    pub functions: Vec<(RangeInclusive<usize>, Vec<usize>)>,
    /// Mutants that are in no body, or in one within another.
    pub left: Vec<usize>,
}

/// Mutants, each with the bytes it replaces, by the body that they are in.
type Bodies<'m> = BTreeMap<(usize, usize), Vec<(Range<usize>, &'m Mutant)>>;

/// The path by which a source file calls what says which mutant runs.
const CHOSEN: &str = "crate::chosen::mutant()";

/// Puts `mutants` of the file whose text is `original` into it, those in `out` left out.
pub fn change(original: &str, mutants: &[&Mutant], out: &BTreeSet<usize>) -> Changed {
    let mut changed = Changed { text: String::new(), arms: vec![], functions: vec![], left: vec![] };
    let mut bodies = Bodies::new();
    for mutant in mutants.iter().filter(|mutant| !out.contains(&mutant.id)) {
        let body =
            mutant.function.as_ref().and_then(|function| body(original, &offsets(original, function.span)));
        let place = offsets(original, mutant.span);
        match body {
            Some(body) if body.start < place.start && place.end <= body.end => {
                bodies.entry((body.start, body.end)).or_default().push((place, mutant));
            }
            _ => changed.left.push(mutant.id),
        }
    }
    let (mut at, mut line) = (0, 1);
    for ((start, end), mutants) in bodies {
        if start < at {
            changed.left.extend(mutants.iter().map(|(_, mutant)| mutant.id));
            continue;
        }
        changed.add(&original[at..start], &mut line);
        let first = line;
        changed.add(&format!("{{ match {CHOSEN} {{\n"), &mut line);
        for (place, mutant) in &mutants {
            let arm_begins = line;
            let (before, behind) = (&original[start..place.start], &original[place.end..end]);
            changed.add(&format!("{} => {before}{} {behind}\n", mutant.id, mutant.text()), &mut line);
            changed.arms.push((arm_begins..=line - 1, mutant.id));
        }
        changed.add(&format!("_ => {}\n}}}}", &original[start..end]), &mut line);
        changed.functions.push((first..=line, mutants.iter().map(|(_, mutant)| mutant.id).collect()));
        at = end;
    }
    changed.add(&original[at..], &mut line);
    changed
}

impl Changed {
    fn add(&mut self, text: &str, line: &mut usize) {
        self.text.push_str(text);
        *line += text.matches('\n').count();
    }
}

/// The bytes that `span` names.
fn offsets(text: &str, span: Span) -> Range<usize> {
    offset(text, span.start)..offset(text, span.end)
}

fn offset(text: &str, place: Place) -> usize {
    let line: usize = text.split_inclusive('\n').take(place.line - 1).map(str::len).sum();
    let column = text[line..].char_indices().nth(place.column - 1).map_or(text.len() - line, |(at, _)| at);
    line + column
}

/// Where the body of the function at `function` is, its braces with it: from the first brace that is in no comment.
fn body(text: &str, function: &Range<usize>) -> Option<Range<usize>> {
    let mut at = function.start;
    while at < function.end {
        let rest = &text[at..function.end];
        if rest.starts_with("//") {
            at += rest.find('\n')?;
        } else if rest.starts_with('{') {
            return text[..function.end].ends_with('}').then_some(at..function.end);
        } else {
            at += rest.chars().next()?.len_utf8();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "// { no\nfn f(a: u64) -> u64 {\n    a + 1\n}\nconst C: u64 = 1 + 2;\n";

    fn mutant(id: usize, function: Option<[usize; 4]>, span: [usize; 4], replacement: &str) -> Mutant {
        let place = |line, column| format!("{{\"line\":{line},\"column\":{column}}}");
        let span_of =
            |[a, b, c, d]: [usize; 4]| format!("{{\"start\":{},\"end\":{}}}", place(a, b), place(c, d));
        let function = function.map_or("null".to_owned(), |f| format!("{{\"span\":{}}}", span_of(f)));
        let json = format!(
            "{{\"id\":{id},\"name\":\"m\",\"file\":\"f\",\"genre\":\"BinaryOperator\",\"function\":{function},\
             \"span\":{},\"replacement\":\"{replacement}\"}}",
            span_of(span)
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn a_body_stands_beside_its_mutants() {
        let minus = mutant(7, Some([2, 1, 4, 2]), [3, 7, 3, 8], "-");
        let changed = change(TEXT, &[&minus], &BTreeSet::new());
        let expected = "// { no\nfn f(a: u64) -> u64 { match crate::chosen::mutant() {\n7 => {\n    a - 1\n}\n_ => {\n    a + 1\n}\n}}\nconst C: u64 = 1 + 2;\n";
        assert_eq!(changed.text, expected.replace("a - 1", "a -  1"));
        assert_eq!((changed.arms, changed.functions), (vec![(3..=5, 7)], vec![(2..=9, vec![7])]));
    }

    #[test]
    fn what_is_in_no_function_is_left_and_what_is_out_is_not_there() {
        let constant = mutant(1, None, [5, 18, 5, 19], "-");
        let minus = mutant(2, Some([2, 1, 4, 2]), [3, 7, 3, 8], "-");
        let changed = change(TEXT, &[&constant, &minus], &BTreeSet::from([2]));
        assert_eq!((changed.text.as_str(), changed.left), (TEXT, vec![1]));
    }
}
