//! Reading traces: every shape that is accepted, and what is said of those that are not.

use std::io::Write as _;
use std::path::Path;

use omega_sim::{Request, Trace, TraceError, Window};

fn parse(text: &str) -> Result<Trace, TraceError> {
    Trace::parse(text.as_bytes())
}

fn problem(text: &str) -> String {
    parse(text).expect_err("it is wrong").to_string()
}

const CSV: &str = "arrival_s,model,input_tokens,output_tokens,tenant\n\
                   0.5,m-a,100,10,red\n\
                   1.25,m-b,200,20,blue\n";

#[test]
fn csv_with_every_column_is_read() {
    let trace = parse(CSV).expect("well-formed");
    assert_eq!(trace.models(), ["m-a", "m-b"]);
    assert_eq!(trace.tenants(), ["red", "blue"]);
    assert!(trace.has_tenants());
    let second =
        Request { arrival: 1_250_000_000, input_tokens: 200, output_tokens: 20, model: 1, tenant: 1 };
    assert_eq!(trace.requests()[1], second);
    assert_eq!(trace.span(), 1_250_000_000);
}

#[test]
fn columns_may_stand_in_any_order_and_model_and_tenant_may_be_missing() {
    let trace = parse("output_tokens,note,arrival_s,input_tokens\n7,\"a, b\",2,9\n").expect("well-formed");
    assert_eq!(
        trace.requests(),
        [Request { arrival: 2_000_000_000, input_tokens: 9, output_tokens: 7, model: 0, tenant: 0 }]
    );
    assert!(!trace.has_tenants());
}

#[test]
fn json_lines_are_read() {
    let trace = parse(
        "{\"arrival_s\": 0.5, \"input_tokens\": 100, \"output_tokens\": 10, \"model\": \"m\", \"tenant\": 7}\n\n\
         {\"arrival_s\": 1, \"input_tokens\": 1, \"output_tokens\": 2, \"extra\": null}\n",
    )
    .expect("well-formed");
    assert_eq!(trace.requests().len(), 2);
    assert_eq!(trace.tenants(), ["7", ""]);
}

#[test]
fn gzip_is_recognised_by_its_first_bytes_in_csv_and_json() {
    for text in [CSV, "{\"arrival_s\":0,\"input_tokens\":1,\"output_tokens\":2}\n"] {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text.as_bytes()).expect("memory takes everything");
        let packed = packed.finish().expect("memory takes everything");
        let unpacked = Trace::parse(packed.as_slice()).expect("well-formed");
        assert_eq!(unpacked.requests(), parse(text).expect("well-formed").requests());
    }
}

#[test]
fn a_broken_gzip_says_that_it_cannot_be_read() {
    let error = Trace::parse([0x1f_u8, 0x8b, 8, 0, 1, 2, 3].as_slice()).expect_err("it is cut off");
    assert!(matches!(error, TraceError::Io { .. }), "{error}");
}

#[test]
fn a_byte_order_mark_windows_line_ends_and_empty_lines_are_taken() {
    let trace = parse("\u{feff}arrival_s,input_tokens,output_tokens\r\n\r\n0,1,2\r\n").expect("well-formed");
    assert_eq!(trace.requests().len(), 1);
}

#[test]
fn rows_out_of_order_are_sorted_and_equal_times_keep_their_order() {
    let trace = parse("arrival_s,input_tokens,output_tokens\n5,1,0\n1,2,0\n5,3,0\n").expect("well-formed");
    let inputs: Vec<u32> = trace.requests().iter().map(|request| request.input_tokens).collect();
    assert_eq!(inputs, [2, 1, 3]);
}

#[test]
fn errors_name_the_line_the_column_and_what_is_expected() {
    let header = "arrival_s,input_tokens,output_tokens\n";
    for (text, said) in [
        (
            String::from("arrival,input_tokens,output_tokens\n0,1,2\n"),
            "line 1: the header has no column arrival_s",
        ),
        (format!("{header}0,1,2\n1,x,2\n"), "line 3: input_tokens is not a number: \"x\""),
        (format!("{header}0,1\n"), "line 2: output_tokens is missing: the row is too short"),
        (format!("{header}-1,1,2\n"), "line 2: arrival_s is -1; expected seconds"),
        (format!("{header}NaN,1,2\n"), "line 2: arrival_s is NaN; expected seconds"),
        (format!("{header}inf,1,2\n"), "line 2: arrival_s is inf; expected seconds"),
        (format!("{header}0,1.5,2\n"), "line 2: input_tokens is 1.5; expected a whole number"),
        (format!("{header}0,1,-2\n"), "line 2: output_tokens is -2; expected a whole number"),
        (
            format!("{header}0,99999999999,2\n"),
            "line 2: input_tokens is 99999999999; expected a whole number",
        ),
        (String::from("{\"arrival_s\":0,\"input_tokens\":1}\n"), "line 1: output_tokens is missing"),
        (
            String::from("{\"arrival_s\":\"a\",\"input_tokens\":1,\"output_tokens\":1}"),
            "line 1: arrival_s is not a number",
        ),
        (String::from("{\"arrival_s\":0,\n"), "line 1: not valid JSON"),
        (
            String::from("{\"arrival_s\":0,\"input_tokens\":1,\"output_tokens\":1}\n0,1,2\n"),
            "line 2: expected a JSON object",
        ),
    ] {
        let found = problem(&text);
        assert!(found.starts_with(said), "{found:?} does not start with {said:?}");
    }
}

#[test]
fn an_empty_trace_and_one_with_only_a_header_are_refused() {
    assert!(matches!(parse(""), Err(TraceError::Empty)));
    assert!(matches!(parse("arrival_s,input_tokens,output_tokens\n"), Err(TraceError::Empty)));
}

#[test]
fn what_is_no_text_or_has_endless_lines_is_refused_before_it_fills_the_memory() {
    let error = Trace::parse([0xff_u8, 0xfe, b'\n'].as_slice()).expect_err("it is no text");
    assert_eq!(error.to_string(), "line 1: not UTF-8 text");
    let error = Trace::parse(std::io::BufReader::new(std::io::repeat(b'a'))).expect_err("it has no end");
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let error = Trace::read(Path::new("/nowhere/trace.csv")).expect_err("it does not exist");
    assert!(error.to_string().starts_with("cannot read /nowhere/trace.csv: "), "{error}");
}

#[test]
fn max_tokens_is_the_power_of_two_at_the_99_9th_percentile_and_at_least_256() {
    let trace = |outputs: &[u32]| {
        Trace::from_requests(
            outputs
                .iter()
                .map(|output| Request {
                    arrival: 0,
                    input_tokens: 1,
                    output_tokens: *output,
                    model: 0,
                    tenant: 0,
                })
                .collect(),
        )
    };
    assert_eq!(trace(&[1]).max_tokens(), 256);
    assert_eq!(trace(&[256]).max_tokens(), 256);
    assert_eq!(trace(&[257]).max_tokens(), 512);
    let mut outputs = vec![300; 999];
    outputs.push(100_000);
    assert_eq!(trace(&outputs).max_tokens(), 512, "one in a thousand lies above the percentile");
}

#[test]
fn the_trace_in_the_repository_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../traces/azure2023_demo.csv.gz");
    let trace = Trace::read(&path).expect("it is part of the repository");
    assert!(trace.requests().len() > 1_000);
    assert_eq!(trace.tenants().len(), 2);
}

#[test]
fn a_slice_has_its_first_moment_and_not_its_last_and_begins_at_zero() {
    let trace = parse(CSV).expect("well-formed");
    let slice = |start, end| trace.slice(Window { start, end });
    let second = Request { arrival: 0, input_tokens: 200, output_tokens: 20, model: 1, tenant: 1 };
    assert_eq!(slice(1_250_000_000, 2_000_000_000).requests(), [second]);
    assert_eq!(slice(0, 1_250_000_000).requests(), &trace.requests()[..1]);
    assert_eq!(slice(0, 1).requests(), []);
    assert_eq!(slice(0, 1).tenants(), trace.tenants());
}

#[test]
fn a_trace_repeated_goes_on_at_its_own_pace() {
    let request = |arrival: u64, output_tokens: u32| Request {
        arrival,
        input_tokens: 1,
        output_tokens,
        model: 0,
        tenant: 0,
    };
    let trace = Trace::from_requests(vec![request(0, 1), request(10, 2), request(20, 3)]).repeated(3);
    let arrivals: Vec<u64> = trace.requests().iter().map(|request| request.arrival).collect();
    assert_eq!(arrivals, [0, 10, 20, 30, 40, 50, 60, 70, 80]);
    assert_eq!(trace.requests()[7], request(70, 2));
    let one = Trace::from_requests(vec![request(0, 1)]).repeated(2);
    assert_eq!(one.requests().len(), 2, "there is nothing to go by: both at once");
}
