export const isDicom = (data) => data.length > 132 && String.fromCharCode(...data.subarray(128, 132)) === "DICM";
export const readIds = () => ({ patient: null, study: null });
export const decodeDicom = async () => { throw new Error("not yet"); };
